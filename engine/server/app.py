"""The HTTP application."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fastapi import APIRouter, FastAPI

from engine.hardware import package_version
from engine.server.body import DEFAULT_MAX_BODY_BYTES
from engine.server.chat import chat
from engine.server.completions import completions
from engine.server.errors import LastResort, install
from engine.server.head import HeadLimit
from engine.server.keys import BEARER, Door, KeyGuard, doors
from engine.server.served_model import ServedModel
from engine.server.status import models, status
from engine.server.tokenization import tokenization
from engine.server.turnstile import Turnstile

DESCRIPTION = (
    "OpenAI's completions and chat completions on one model. Where the server has keys, everything under /v1 takes one "
    "of them as a bearer token; /admin always takes one of its own; the rest is free. Errors have OpenAI's shape."
)


def build_app(
    served: ServedModel,
    *,
    guarded: Mapping[str, Door] | None = None,
    max_body_bytes: int = DEFAULT_MAX_BODY_BYTES,
    routers: Sequence[APIRouter] = (),
) -> FastAPI:
    """Return the application.

    Parameters
    ----------
    served
        What it serves.
    guarded
        What opens the paths under each prefix (:func:`engine.server.keys.doors`). Default: no keys at all.
    max_body_bytes
        Longer bodies are refused, however they are sent.
    routers
        Further routes; under ``/admin`` they are guarded.
    """
    app = FastAPI(
        title="Charioteer",
        version=package_version("charioteer"),
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.max_body_bytes = max_body_bytes
    behind = guarded if guarded is not None else doors((), ())
    for router in (completions(served), chat(served), models(served)):
        app.include_router(router, dependencies=[BEARER] if behind["/v1"].keys else [])
    for router in (tokenization(served), status(served), *routers):
        app.include_router(router)
    install(app)
    app.add_middleware(Turnstile, prefix="/v1/")
    app.add_middleware(KeyGuard, doors=behind)
    app.add_middleware(HeadLimit)
    app.add_middleware(LastResort)
    return app
