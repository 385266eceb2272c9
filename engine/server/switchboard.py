"""Where engines of other machines call in, and how they are known to be ours."""

from __future__ import annotations

import logging
import os
import secrets
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge
from pathlib import Path
from threading import Event, Thread
from time import perf_counter
from typing import Any

from engine.server.channel import Line
from engine.server.clock_shift import ShiftedLine

log = logging.getLogger(__name__)

LOST_AFTER_S = 20
"""A machine that does not answer for so long is taken for lost, with the engines on it."""
PROBES = 8
"""Exchanges by which two clocks are compared."""


@dataclass(frozen=True, kw_only=True)
class Hotline:
    """Where to call, and the secret by which both ends know each other. It opens a connection that is not encrypted,
    as those of Ray are not: for networks that nobody else is on."""

    host: str
    port: int
    secret: bytes = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Which replica calls, its process, and by which clock it goes: processes of one boot share theirs."""

    index: int
    pid: int
    boot: str


class EngineLine:
    """The server's end of a connection to an engine that it did not start: both line and process to a client."""

    exitcode = None

    def __init__(self, connection: Connection, caller: Caller) -> None:
        self._connection = connection
        self._gone = Event()
        self.pid: int | None = caller.pid

    def send(self, obj: Any, /) -> None:
        """Send an object; OSError where the other end is gone."""
        self._connection.send(obj)

    def recv(self) -> Any:
        """Wait for an object, and return it; EOFError or OSError where the other end is gone."""
        try:
            return self._connection.recv()
        except (EOFError, OSError):
            self._gone.set()
            raise

    def kill(self) -> None:
        """Hang up: the engine then ends by itself."""
        with suppress(OSError):
            _shut(self._connection)
        self._gone.set()

    def join(self) -> None:
        """Return once the other end is gone."""
        self._gone.wait()


class Switchboard:
    """Takes calls, each in a thread of its own, until it is closed.

    Parameters
    ----------
    host
        The address of this machine at which to listen.
    on_call
        Called in such a thread with who calls, once it is known to be ours, and the line.
    """

    def __init__(self, host: str, on_call: Callable[[Caller, EngineLine], None]) -> None:
        self._listener = socket.create_server((host, 0), family=_family(host))
        self._on_call = on_call
        self.hotline = Hotline(host=host, port=self._listener.getsockname()[1], secret=secrets.token_bytes(32))
        Thread(target=self._listen, name="switchboard", daemon=True).start()

    def close(self) -> None:
        """Take no more calls; those that were taken go on."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _listen(self) -> None:
        while True:
            try:
                accepted, _ = self._listener.accept()
            except OSError:
                return
            Thread(target=self._take, args=(accepted,), name="call", daemon=True).start()

    def _take(self, accepted: socket.socket) -> None:
        """Let in who knows the secret, and nobody else; nothing is unpickled before."""
        connection = _connection(accepted)
        try:
            deliver_challenge(connection, self.hotline.secret)
            answer_challenge(connection, self.hotline.secret)
            caller = connection.recv()
            connection.send(_boot())
            while connection.recv() is not None:
                connection.send(perf_counter())
        except Exception as error:
            log.warning("a call that is none of an engine's: %s", type(error).__name__)
            connection.close()
        else:
            self._on_call(caller, EngineLine(connection, caller))


def call(hotline: Hotline, index: int) -> tuple[Line, Callable[[], None]]:
    """Call a server as replica ``index``.

    Returns
    -------
    tuple
        A line whose times are those of the server's clock at its end, and what hangs up.

    Raises
    ------
    OSError
        If nobody answers.
    multiprocessing.AuthenticationError
        If it is not ours.
    """
    connection = _connection(socket.create_connection((hotline.host, hotline.port)))
    answer_challenge(connection, hotline.secret)
    deliver_challenge(connection, hotline.secret)
    connection.send(Caller(index=index, pid=os.getpid(), boot=_boot()))
    here = connection.recv() == _boot()
    ahead_s = 0.0 if here else min(_probe(connection) for _ in range(PROBES))[1]
    connection.send(None)
    return connection if here else ShiftedLine(connection, ahead_s), partial(_shut, connection)


def _probe(connection: Connection) -> tuple[float, float]:
    """Return how long an exchange took, and how far the other clock is ahead of ours by it."""
    sent_s = perf_counter()
    connection.send(True)
    there_s = connection.recv()
    back_s = perf_counter()
    return back_s - sent_s, there_s - (sent_s + back_s) / 2


def _connection(connected: socket.socket) -> Connection:
    """Return a connection over a socket; a machine that is gone without a word is noticed."""
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, LOST_AFTER_S // 4)
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, LOST_AFTER_S // 4)
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * LOST_AFTER_S)
    return Connection(connected.detach())


def _shut(connection: Connection) -> None:
    """End a connection in both directions, so that a thread that reads from it wakes."""
    with socket.socket(fileno=os.dup(connection.fileno())) as copy:
        copy.shutdown(socket.SHUT_RDWR)


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _boot() -> str:
    """Return what tells the boots of machines apart, and so their monotonic clocks."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
