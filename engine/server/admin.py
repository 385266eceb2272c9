"""The policy that rules, and another in its place while requests are served."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Body
from fastapi.params import Depends

from engine.server.body import JsonRoute
from engine.server.client import EngineClient

PolicyDocument = Annotated[
    dict[str, Any],
    Body(
        description="The content of a policy.json: `policy`, and its settings.",
        examples=[{"policy": "sarathi-serve", "max_num_batched_tokens": 512}],
    ),
]


def admin_router(client: EngineClient, *, dependencies: Sequence[Depends]) -> APIRouter:
    """Return the routes of ``/admin/policy``; ``dependencies`` let nobody through who has no admin key.

    What they raise is :class:`engine.server.client.ServerError`, which the application answers with its status.
    """
    router = APIRouter(prefix="/admin", dependencies=list(dependencies), route_class=JsonRoute)

    @router.get("/policy")
    async def ruling_policy() -> dict[str, Any]:
        """Return the policy that rules, as policy.json has it."""
        return client.ready.policy

    @router.post("/policy")
    async def swap_policy(policy: PolicyDocument) -> dict[str, Any]:
        """Put another policy in charge from the next iteration on, and return it.

        Requests in service go on: those that run keep their KV where the new policy would have them run too, the
        others compute it again. A policy that could never serve one of them is refused, and the old one rules on.
        """
        return await client.swap(policy)

    return router
