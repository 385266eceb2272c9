"""What comes out for one request of a cluster, whichever replica serves it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from engine.server.client import EngineDownError, Stream
from engine.server.messages import Produced


class ClusterStream:
    """A :class:`engine.server.client.Stream`; a request of which nothing has been given out survives its replica.

    Parameters
    ----------
    stream
        That of the replica which has the request.
    send_again
        Sends the request to another replica and returns its stream; raises
        :class:`engine.server.client.EngineDownError` where none is up.
    """

    __slots__ = ("_begun", "_left", "_send_again", "_stream")

    def __init__(self, stream: Stream, send_again: Callable[[], Stream]) -> None:
        self._stream = stream
        self._send_again = send_again
        self._begun = self._left = False

    def __aiter__(self) -> AsyncIterator[Produced]:
        return self

    async def __anext__(self) -> Produced:
        """Return what is new, once there is something."""
        while True:
            try:
                produced = await anext(aiter(self._stream))
            except EngineDownError as error:
                self._begin_again(error)
            else:
                self._begun = True
                return produced

    async def whole(self) -> Produced:
        """Return all that comes, at its end."""
        while True:
            try:
                return await self._stream.whole()
            except EngineDownError as error:
                self._begin_again(error)

    def _begin_again(self, error: EngineDownError) -> None:
        """Go to another replica; raise ``error`` where something has been given out, or nobody waits any more."""
        if self._begun or self._left:
            raise error
        self._stream = self._send_again()

    def abort(self) -> None:
        """Nobody waits for the rest."""
        self._left = True
        self._stream.abort()
