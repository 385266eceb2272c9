"""One connection: clients that do not read are dropped, and what is no HTTP gets OpenAI's errors too."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from engine.server.errors import ApiError, error_body


class Connection(H11Protocol):
    """HTTP/1.1 by uvicorn; ``write_timeout_s`` is how long a client may leave a full buffer unread."""

    write_timeout_s = 60.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._patience: asyncio.TimerHandle | None = None

    def pause_writing(self) -> None:
        """Wait for the client, which has not read what the buffer holds, but not for ever."""
        super().pause_writing()
        self._patience = self.loop.call_later(self.write_timeout_s, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on: the client has read."""
        super().resume_writing()
        self._be_patient()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the request in progress, if any, that its client is gone."""
        super().connection_lost(exc)
        self._be_patient()

    def _be_patient(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP; where an answer is on its way already, only end the connection."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = error_body(ApiError(400, msg))
            headers = [
                ("content-type", "application/json"),
                ("content-length", str(len(body))),
                ("connection", "close"),
            ]
            for event in (h11.Response(status_code=400, headers=headers), h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


def connection_type(write_timeout_s: float) -> type[Connection]:
    """Return the protocol for uvicorn."""
    return type("Connection", (Connection,), {"write_timeout_s": write_timeout_s})
