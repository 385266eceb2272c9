"""Bodies of requests: JSON, strictly, and no longer than they may be."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic_core import from_json

from engine.server.errors import ApiError

DEFAULT_MAX_BODY_BYTES = 16 * 2**20


class JsonRequest(Request):
    """A request whose body is read once, up to ``app.state.max_body_bytes``, as strict JSON."""

    async def body(self) -> bytes:
        """Return the body; 413 as soon as it is known to be too long, 415 if it says to be other than JSON."""
        if not hasattr(self, "_body"):
            self._check_type()
            most = int(self.app.state.max_body_bytes)
            said = self.headers.get("content-length", "")
            if said.isdecimal() and int(said) > most:
                raise _too_large(most)
            parts, size = list[bytes](), 0
            async for part in self.stream():
                parts.append(part)
                size += len(part)
                if size > most:
                    raise _too_large(most)
            self._body = b"".join(parts)
        return self._body

    async def json(self) -> Any:
        """Return the document: UTF-8, no NaN, at most 200 levels deep, no half of a surrogate pair."""
        if not hasattr(self, "_json"):
            try:
                self._json = from_json(await self.body(), allow_inf_nan=False)
            except ValueError as error:
                raise ApiError(400, f"the body is not JSON: {error}") from error
        return self._json

    def _check_type(self) -> None:
        kind = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise ApiError(415, "the body must be JSON: send it with 'Content-Type: application/json'")


def _too_large(most: int) -> ApiError:
    return ApiError(413, f"the body is larger than the {most} bytes that this server takes")


class JsonRoute(APIRoute):
    """A route whose requests are :class:`JsonRequest`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what serves a request."""
        serve = super().get_route_handler()

        async def handler(request: Request) -> Response:
            return await serve(JsonRequest(request.scope, request.receive))

        return handler
