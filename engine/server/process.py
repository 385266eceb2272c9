"""The engine's process: what runs in it, and how it is started."""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from queue import SimpleQueue
from typing import Protocol

from engine.options import quiet
from engine.server.blueprint import Blueprint
from engine.server.channel import Channel, Line
from engine.server.messages import Dead, FromEngine, Stop, ToEngine, Unready
from engine.server.record_folder import RecordFolder
from engine.server.recorder import Recorder
from engine.server.service import BrokenEngineError, Service
from engine.shortage import first_line
from traces.errors import InputError

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""What a terminal or a supervisor sends to all processes: the server's alone decides what follows from it."""
ORPHAN_S = 10.0
"""How long the last record may take to be completed once the server is gone."""


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
    channel = Channel(connection, inbox.put, lambda: _orphan(blueprint, inbox, on_end))
    channel.start()
    with ExitStack() as records:
        last = _life(blueprint, inbox, channel, records)
        if last is not None:
            channel.send(last)
    channel.close()
    return 0 if last is None else 2 if isinstance(last, Unready) else 1


def _orphan(blueprint: Blueprint, inbox: SimpleQueue[Sequence[ToEngine]], on_end: Callable[[], None]) -> None:
    """The server is gone: end at once, or as soon as the last record is complete."""
    if blueprint.record is not None:
        inbox.put((Stop(drain=False),))
        time.sleep(ORPHAN_S)
    on_end()


def _life(
    blueprint: Blueprint, inbox: SimpleQueue[Sequence[ToEngine]], channel: Channel, records: ExitStack
) -> FromEngine | None:
    """Serve until told to stop; return what there is to say where it comes to another end.

    ``records`` are complete when they are closed.
    """
    try:
        quiet()
        folder = None if blueprint.record is None else RecordFolder(blueprint.record)
        engine = blueprint.build()
        recorder = (
            None
            if folder is None
            else Recorder(folder, engine, model=blueprint.settings.model, period_s=blueprint.record_s)
        )
        gc.collect()
        gc.freeze()
        service = Service(engine, inbox, channel.send, profile=blueprint.profile, follower=recorder)
        records.callback(service.close)
        service.run()
    except InputError as error:
        return Unready(message=str(error))
    except BrokenEngineError as error:
        return Dead(message=str(error))
    except Exception as error:
        log.exception("the engine broke")
        return Dead(message=f"the engine broke: {type(error).__name__}: {first_line(error)}")
    return None
