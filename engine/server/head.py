"""How much a request may send before its body."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from engine.server.errors import ApiError, error_response

MOST_HEAD_BYTES = 32 * 2**10


def head_too_large() -> ApiError:
    """Return what a client is told."""
    return ApiError(431, f"path and headers are longer than the {MOST_HEAD_BYTES} bytes that this server takes")


class HeadLimit:
    """ASGI middleware that refuses requests whose path and headers are too long.

    An HTTP parser bounds what it must keep of a head that is incomplete; one that comes whole passes at any length.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        size = len(scope["raw_path"]) + len(scope["query_string"])
        size += sum([len(name) + len(value) for name, value in scope["headers"]])
        if size > MOST_HEAD_BYTES:
            await error_response(head_too_large())(scope, receive, send)
        else:
            await self._app(scope, receive, send)
