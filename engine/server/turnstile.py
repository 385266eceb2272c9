"""Requests that come at once are begun a few at a time, so that everybody else gets a turn of the event loop too."""

from __future__ import annotations

import asyncio
from collections import deque

from starlette.types import ASGIApp, Receive, Scope, Send

AT_ONCE = 4
"""Requests that are begun in one turn of the event loop; each takes about a millisecond up to where it waits."""


class Turnstile:
    """ASGI middleware that lets requests under a prefix pass in the order in which they came, a few at a time."""

    def __init__(self, app: ASGIApp, *, prefix: str) -> None:
        self._app = app
        self._prefix = prefix
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["path"].startswith(self._prefix):
            await self._turn()
        await self._app(scope, receive, send)

    async def _turn(self) -> None:
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._let_pass)
        self._waiting.append(loop.create_future())
        await self._waiting[-1]

    def _let_pass(self) -> None:
        for turn in [self._waiting.popleft() for _ in range(min(AT_ONCE, len(self._waiting)))]:
            if not turn.done():
                turn.set_result(None)
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._let_pass)
