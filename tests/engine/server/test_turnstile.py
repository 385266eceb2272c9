"""A burst of requests leaves turns of the event loop to others."""

from __future__ import annotations

import asyncio
from itertools import pairwise

from starlette.types import Receive, Scope, Send

from engine.server.turnstile import AT_ONCE, Turnstile


def test_requests_pass_in_order_a_few_at_a_time_and_others_at_once() -> None:
    passed = list[str]()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        passed.append(scope["path"])

    async def nothing(*_: object) -> None:
        return None

    async def scene() -> list[int]:
        turnstile = Turnstile(app, prefix="/v1/")
        waiting = [
            asyncio.create_task(turnstile({"type": "http", "path": f"/v1/{place}"}, nothing, nothing))
            for place in range(3 * AT_ONCE)
        ]
        await turnstile({"type": "http", "path": "/health"}, nothing, nothing)
        counts = list[int]()
        while not all(task.done() for task in waiting):
            await asyncio.sleep(0)
            counts.append(len(passed))
        return counts

    counts = asyncio.run(scene())
    assert passed == ["/health", *(f"/v1/{place}" for place in range(3 * AT_ONCE))]
    assert max(after - before for before, after in pairwise(counts)) == AT_ONCE
