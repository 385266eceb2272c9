"""Messages between two processes; whoever sends one waits for nobody."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, Protocol


class Line(Protocol):
    """What messages go over; the connections of :mod:`multiprocessing` are such lines."""

    def send(self, obj: Any, /) -> None:
        """Send an object; OSError where the other end is gone."""

    def recv(self) -> Any:
        """Wait for an object, and return it; EOFError or OSError where the other end is gone."""


class Channel:
    """One end of a connection: a thread takes messages in, another sends them, what has piled up in one go.

    Parameters
    ----------
    connection
        Its end of a pipe. Both ends are processes of ours, so that pickles come from nobody else.
    on_messages
        Called with what came, in order, in the thread that takes it in.
    on_end
        Called there once, when the other end is gone.
    """

    def __init__(
        self, connection: Line, on_messages: Callable[[Sequence[Any]], None], on_end: Callable[[], None]
    ) -> None:
        self._connection = connection
        self._on_messages = on_messages
        self._on_end = on_end
        self._outgoing: SimpleQueue[Any] = SimpleQueue()
        self._reader = Thread(target=self._read, name="reader", daemon=True)
        self._writer = Thread(target=self._write, name="writer", daemon=True)

    def start(self) -> None:
        """Begin to take in and to send."""
        self._reader.start()
        self._writer.start()

    def send(self, message: object) -> None:
        """Have a message sent, behind those before it; nothing happens where the other end is gone."""
        self._outgoing.put(message)

    def close(self, timeout_s: float | None = None) -> None:
        """Send what is left, and nothing from then on."""
        self._outgoing.put(None)
        self._writer.join(timeout_s)

    def _read(self) -> None:
        while (messages := self._received()) is not None:
            self._on_messages(messages)
        self._on_end()

    def _received(self) -> Sequence[Any] | None:
        try:
            messages: Sequence[Any] = self._connection.recv()
        except (EOFError, OSError):
            return None
        return messages

    def _write(self) -> None:
        open_ = True
        while open_:
            messages = self._gathered()
            open_ = messages[-1] is not None
            try:
                self._connection.send(messages if open_ else messages[:-1])
            except OSError:
                return

    def _gathered(self) -> list[Any]:
        """Wait for a message, and return it with those behind it, up to the None that closes the channel."""
        messages = [self._outgoing.get()]
        try:
            while messages[-1] is not None:
                messages.append(self._outgoing.get_nowait())
        except Empty:
            pass
        return messages
