"""What the server says of itself: its models, its health, its version."""

from __future__ import annotations

from fastapi import APIRouter

from engine.hardware import package_version
from engine.server.errors import ApiError
from engine.server.openapi import documented
from engine.server.responses import Health, ModelCard, ModelList, Version
from engine.server.served_model import ServedModel


def models(served: ServedModel) -> APIRouter:
    """Return the routes under ``/v1/models``."""
    router = APIRouter()

    @router.get("/v1/models", **documented(ModelList))
    def list_models() -> ModelList:
        """List the names of the model that is served."""
        return {"object": "list", "data": [_card(served, name) for name in served.names]}

    @router.get("/v1/models/{model:path}", **documented(ModelCard))
    def retrieve_model(model: str) -> ModelCard:
        """Describe the model of a name."""
        return _card(served, served.name(model))

    return router


def status(served: ServedModel) -> APIRouter:
    """Return the routes that need no key."""
    router = APIRouter()

    @router.get("/health", **documented(Health))
    async def health() -> Health:
        """Say whether requests are served; 503 while the server drains, or once its engine is gone."""
        reason = served.client.unhealthy
        if reason is not None:
            raise ApiError(503, reason)
        return {"status": "ok"}

    router.add_api_route("/ping", health, methods=["GET"], operation_id="ping", **documented(Health))
    router.add_api_route("/ping", health, methods=["POST"], operation_id="ping_by_post", **documented(Health))

    @router.get("/version", **documented(Version))
    async def version() -> Version:
        """Say which version of Charioteer this is."""
        return {"version": package_version("charioteer")}

    return router


def _card(served: ServedModel, name: str) -> ModelCard:
    return {
        "id": name,
        "object": "model",
        "created": served.created,
        "owned_by": "charioteer",
        "root": served.names[0],
        "parent": None,
        "max_model_len": served.context,
    }
