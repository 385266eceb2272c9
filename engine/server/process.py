"""The engine's process: what runs in it, and how it is started."""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from queue import SimpleQueue
from typing import Protocol

from engine.options import quiet
from engine.server.blueprint import Blueprint
from engine.server.channel import Channel, Line
from engine.server.messages import Dead, FromEngine, ToEngine, Unready
from engine.server.service import BrokenEngineError, Service
from engine.shortage import first_line
from traces.errors import InputError

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""What a terminal or a supervisor sends to all processes: the server's alone decides what follows from it."""


class EngineProcess(Protocol):
    """A process that holds an engine; those of :mod:`multiprocessing` are. ``exitcode`` is None where unknown."""

    @property
    def pid(self) -> int | None:
        """Its id, on its machine."""

    @property
    def exitcode(self) -> int | None:
        """With which status it ended."""

    def kill(self) -> None:
        """End it at once."""

    def join(self) -> None:
        """Return once it has ended."""


def spawn_engine(blueprint: Blueprint) -> tuple[BaseProcess, Connection]:
    """Start an engine's process; return it, and the connection to it.

    It ends when the connection breaks, however the server ends.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=run_engine, args=(theirs, blueprint), name="engine")
    masked = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, masked)
        theirs.close()
    return process, ours


def run_engine(connection: Connection, blueprint: Blueprint) -> None:
    """Build an engine and serve with it; the whole life of its process, which exits with status 0 once told to stop,
    2 where nothing can be built of ``blueprint``, and 1 where the engine broke. Its libraries are not taken down one by
    one: that takes seconds, and some complain."""
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    status = live(connection, blueprint, lambda: os._exit(1))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def live(connection: Line, blueprint: Blueprint, on_end: Callable[[], None]) -> int:
    """Build an engine and serve until told to stop; return the status to exit with. ``on_end`` is called when the other
    end is gone."""
    inbox: SimpleQueue[Sequence[ToEngine]] = SimpleQueue()
    channel = Channel(connection, inbox.put, on_end)
    channel.start()
    last = _life(blueprint, inbox, channel)
    if last is not None:
        channel.send(last)
    channel.close()
    return 0 if last is None else 2 if isinstance(last, Unready) else 1


def _life(blueprint: Blueprint, inbox: SimpleQueue[Sequence[ToEngine]], channel: Channel) -> FromEngine | None:
    """Serve until told to stop; return what there is to say where it comes to another end."""
    try:
        quiet()
        engine = blueprint.build()
        gc.collect()
        gc.freeze()
        Service(engine, blueprint.choice, inbox, channel.send, profile=blueprint.profile).run()
    except InputError as error:
        return Unready(message=str(error))
    except BrokenEngineError as error:
        return Dead(message=str(error))
    except Exception as error:
        log.exception("the engine broke")
        return Dead(message=f"the engine broke: {type(error).__name__}: {first_line(error)}")
    return None
