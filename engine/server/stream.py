"""What comes out for one request, from the event loop's messages to the coroutine that reads it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from engine.server.client import ServerError
from engine.server.messages import Produced


class RequestStream:
    """A :class:`engine.server.client.Stream`; everything happens in one event loop.

    What has come since it was last asked comes as one, so that a reader that is slow costs less, and holds up nobody.

    Parameters
    ----------
    key
        The request's.
    on_abort
        Called with the stream, once, if it is left before its end.
    """

    __slots__ = ("_ended", "_error", "_on_abort", "_patient", "_pending", "_waiter", "key", "timer")

    def __init__(self, key: int, on_abort: Callable[[RequestStream], None]) -> None:
        self.key = key
        self.timer: asyncio.TimerHandle | None = None
        self._on_abort = on_abort
        self._pending: list[Produced] = []
        self._waiter: asyncio.Future[None] | None = None
        self._error: ServerError | None = None
        self._patient = False
        self._ended = False

    # --- for whoever reads ---

    def __aiter__(self) -> AsyncIterator[Produced]:
        return self

    async def __anext__(self) -> Produced:
        """Return what is new, once there is something."""
        if not (self._pending or self._ended):
            await self._news()
        if self._pending:
            return self._taken()
        if self._error is not None:
            raise self._error
        raise StopAsyncIteration

    async def whole(self) -> Produced:
        """Return all that comes, once it is there; raise ServerError where it will not be. Costs nothing meanwhile."""
        self._patient = True
        while not self._ended:
            await self._news()
        if self._error is not None:
            raise self._error
        return self._taken()

    def abort(self) -> None:
        """Nobody waits for the rest."""
        if not self._ended:
            self._ended = True
            self._pending.clear()
            self._on_abort(self)

    # --- for whoever writes ---

    def put(self, produced: Produced) -> None:
        """Add what an iteration made; with ``finish`` it is the last."""
        self._pending.append(produced)
        self._ended = produced.finish is not None
        if self._ended or not self._patient:
            self._wake()

    def fail(self, error: ServerError) -> None:
        """End it: what has come can still be read, then ``error`` is raised."""
        self._error, self._ended = error, True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _news(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _taken(self) -> Produced:
        """Return all that is pending as one."""
        pending, self._pending = self._pending, []
        if len(pending) == 1:
            return pending[0]
        last = pending[-1]
        return last._replace(
            token_ids=tuple(token for each in pending for token in each.token_ids),
            text="".join([each.text for each in pending]),
            logprobs=tuple(entry for each in pending for entry in each.logprobs),
        )
