"""One connection: clients that do not read or do not send are dropped, and what is no HTTP gets OpenAI's errors too."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from engine.server.errors import ApiError, error_body
from engine.server.head import MOST_HEAD_BYTES, head_too_large


class Connection(H11Protocol):
    """HTTP/1.1 by uvicorn.

    Attributes
    ----------
    write_timeout_s
        How long a client may leave a full buffer unread.
    read_timeout_s
        How long a request may take to arrive, from its first byte to its last; from the connection to the last byte
        of the first.
    """

    write_timeout_s = 60.0
    read_timeout_s = 60.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._writing: asyncio.TimerHandle | None = None
        self._arriving: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for a request, but not for ever."""
        super().connection_made(transport)
        self._arriving = self.loop.call_later(self.read_timeout_s, self._give_up)

    def data_received(self, data: bytes) -> None:
        """Take what came, and see whether a request is incomplete."""
        super().data_received(data)
        state = self.conn.their_state
        if state is h11.SEND_BODY or (state is h11.IDLE and self.conn.trailing_data[0]):
            if self._arriving is None:
                self._arriving = self.loop.call_later(self.read_timeout_s, self._give_up)
        elif self._arriving is not None:
            self._arriving.cancel()
            self._arriving = None

    def _give_up(self) -> None:
        self._arriving = None
        self._refuse(ApiError(408, f"the request did not arrive within {self.read_timeout_s:g} s"))

    def pause_writing(self) -> None:
        """Wait for the client, which has not read what the buffer holds, but not for ever."""
        super().pause_writing()
        self._writing = self.loop.call_later(self.write_timeout_s, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on: the client has read."""
        super().resume_writing()
        self._be_patient()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the request in progress, if any, that its client is gone."""
        super().connection_lost(exc)
        self._be_patient()
        if self._arriving is not None:
            self._arriving.cancel()

    def _be_patient(self) -> None:
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, or what has no end."""
        endless = len(self.conn.trailing_data[0]) > MOST_HEAD_BYTES
        self._refuse(head_too_large() if endless else ApiError(400, msg))

    def _refuse(self, error: ApiError) -> None:
        """Answer and end the connection; where an answer is on its way already, only end it."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = error_body(error)
            headers = [
                ("content-type", "application/json"),
                ("content-length", str(len(body))),
                ("connection", "close"),
            ]
            response = h11.Response(status_code=error.status_code, headers=headers)
            for event in (response, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


def connection_type(*, write_timeout_s: float, read_timeout_s: float) -> type[Connection]:
    """Return the protocol for uvicorn."""
    return type("Connection", (Connection,), {"write_timeout_s": write_timeout_s, "read_timeout_s": read_timeout_s})
