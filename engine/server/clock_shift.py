"""An engine on a machine whose monotonic clock is another than the server's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from engine.server.channel import Line
from engine.server.messages import Idle, Produced, Served, Step, Submit


class ShiftedLine:
    """A line whose moments are those of the server's clock at its end, and of the engine's own at ours.

    Parameters
    ----------
    line
        To the server.
    ahead_s
        How far the server's clock is ahead of ours.
    """

    def __init__(self, line: Line, ahead_s: float) -> None:
        self._line = line
        self._ahead_s = ahead_s

    def send(self, obj: Sequence[Any], /) -> None:
        """Send messages to the server."""
        self._line.send([self._theirs(message) for message in obj])

    def recv(self) -> Sequence[Any]:
        """Wait for messages from the server, and return them."""
        return [self._ours(message) for message in self._line.recv()]

    def _ours(self, message: Any) -> Any:
        if isinstance(message, Submit):
            return replace(message, arrival_s=message.arrival_s - self._ahead_s)
        return message

    def _theirs(self, message: Any) -> Any:
        match message:
            case Step():
                start_s, end_s = message.start_s + self._ahead_s, message.end_s + self._ahead_s
                return replace(message, produced=self._produced(message), start_s=start_s, end_s=end_s)
            case Idle():
                return replace(message, produced=self._produced(message))
        return message

    def _produced(self, message: Step | Idle) -> tuple[Produced, ...]:
        return tuple(
            each if each.served is None else each._replace(served=self._served(each.served))
            for each in message.produced
        )

    def _served(self, served: Served) -> Served:
        names = ("arrival_s", "scheduled_s", "first_token_s", "finished_s")
        return replace(served, **{name: getattr(served, name) + self._ahead_s for name in names})
