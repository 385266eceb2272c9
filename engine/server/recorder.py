"""Run records of what an engine serves, written by a thread of their own."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Collection, Iterable
from contextlib import ExitStack
from math import inf
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any, Protocol

from engine.engine import Engine, Iteration
from engine.replay import deployment_of
from engine.request import Request
from engine.server.record_folder import RecordFolder
from engine.server.segment import NothingServedError, Segment, segment
from engine.shortage import first_line
from policies.catalog import PolicyChoice

log = logging.getLogger(__name__)

BACKLOG = 16_384
"""Iterations that may wait to be written. Where there are more, the record ends, and the next one begins once they are
written: memory stays bounded, and no record has a gap."""
CLOSING_S = 30.0
"""How long the last record may take to be written."""


class Follower(Protocol):
    """Sees what the engine does, from the thread that runs it, which does not wait for it."""

    def arrived(self, request: Request) -> None:
        """Take note of a request that the engine has taken."""
        ...

    def ran(self, iteration: Iteration) -> None:
        """Take note of an iteration, and of the requests that ended with it."""
        ...

    def left(self, requests: Collection[Request]) -> None:
        """Take note of requests that ended otherwise: aborted, or failed."""
        ...

    def swapped(self) -> None:
        """Take note that another policy rules."""
        ...

    def close(self, left: Collection[Request]) -> None:
        """Take note that nothing more comes, and of the requests that are still there."""
        ...


class Unrecorded:
    """Takes note of nothing."""

    def arrived(self, request: Request) -> None:
        """Do nothing."""

    def ran(self, iteration: Iteration) -> None:
        """Do nothing."""

    def left(self, requests: Collection[Request]) -> None:
        """Do nothing."""

    def swapped(self) -> None:
        """Do nothing."""

    def close(self, left: Collection[Request]) -> None:
        """Do nothing."""


class Recorder:
    """Writes run records and workloads, one after the other.

    A record begins when a request arrives. It holds the requests that arrive until the next one begins, and the
    iterations of that time; it is complete once these requests have ended. It ends with the policy, after ``period_s``
    at the next request, and where the disk does not keep up.

    Parameters
    ----------
    folder
        Where they go.
    engine
        What serves.
    model
        Where its model comes from.
    period_s
        How long a record may be.

    Raises
    ------
    InputError
        If the model's FLOPs cannot be told from its config.
    """

    def __init__(self, folder: RecordFolder, engine: Engine, *, model: str, period_s: float = inf) -> None:
        deployment_of(engine.runner, [engine.choice], model)
        self._folder, self._engine, self._period_s = folder, engine, period_s
        self._queue: SimpleQueue[tuple[Callable[..., None], tuple[Any, ...]] | None] = SimpleQueue()
        self._books = Books(engine, model)
        self._thread = Thread(target=self._write, name="recorder", daemon=True)
        self._thread.start()
        self._start_s: float | None = None
        self._end_id: float = 0
        self._missed = 0

    # --- in the thread of the engine ---

    def arrived(self, request: Request) -> None:
        """Begin a record with a request where there is none, or the last one is long enough."""
        arrival_s = request.sequence.arrival_s
        if self._start_s is not None and arrival_s - self._start_s >= self._period_s:
            self._end(request.request_id)
        if self._start_s is None and self._queue.qsize() < BACKLOG // 2 and not self._books.broken:
            self._say_missed()
            self._start_s, self._end_id = arrival_s, inf
            path, choice = self._folder.following(), self._engine.choice
            self._put(self._books.begin, path, choice, arrival_s, request.request_id)

    def ran(self, iteration: Iteration) -> None:
        """Take note of an iteration."""
        if self._start_s is None:
            self._missed += bool(self._missed)
        elif self._queue.qsize() < BACKLOG:
            self._put(self._books.ran, iteration)
            return
        else:
            self._end(self._engine.next_id)
            self._missed = 1
            log.warning("the disk does not keep up with --record: the record ends")
        self.left(iteration.finished)

    def left(self, requests: Collection[Request]) -> None:
        """Take note of requests that ended otherwise, or without a record to go on with."""
        own = [request for request in requests if request.request_id < self._end_id]
        if own:
            self._put(self._books.left, own)

    def swapped(self) -> None:
        """End the record: a run has one policy."""
        if self._start_s is not None:
            self._end(self._engine.next_id)

    def close(self, left: Collection[Request]) -> None:
        """Complete the last record, with requests that are still there as unfinished; wait for it."""
        self.left(left)
        if self._start_s is not None:
            self._end(self._engine.next_id)
        self._queue.put(None)
        self._thread.join(CLOSING_S)

    def _end(self, next_id: int) -> None:
        self._start_s, self._end_id = None, next_id
        self._put(self._books.end, next_id)

    def _put(self, what: Callable[..., None], *given: Any) -> None:
        if not self._books.broken:
            self._queue.put((what, given))

    def _say_missed(self) -> None:
        if self._missed:
            log.warning("--record goes on; %d iterations are in no record", self._missed)
            self._missed = 0

    # --- in its own ---

    def _write(self) -> None:
        """Write what comes; the first problem ends it, and nothing but it."""
        while (event := self._queue.get()) is not None:
            what, given = event
            try:
                if not self._books.broken:
                    what(*given)
            except Exception as error:
                self._books.give_up()
                log.error("recording has stopped, and serving goes on: %s", first_line(error))


class Books:
    """The records that are being written; only the thread that writes touches it, others may see whether it broke.

    Attributes
    ----------
    broken
        Whether nothing is written any more.
    """

    def __init__(self, engine: Engine, model: str) -> None:
        self._engine, self._model = engine, model
        self._salt = secrets.token_bytes(32)
        self._open: list[tuple[Segment, ExitStack]] = []
        self.broken = False

    def begin(self, path: Path, choice: PolicyChoice, start_s: float, first_id: int) -> None:
        """Begin a record."""
        stack = ExitStack()
        made = segment(
            path, self._engine, choice, model=self._model, start_s=start_s, first_id=first_id, salt=self._salt
        )
        self._open.append((stack.enter_context(made), stack))

    def ran(self, iteration: Iteration) -> None:
        """Take an iteration for the last record, and the requests that ended with it."""
        last = self._open[-1][0]
        if not last.over:
            last.ran(iteration)
        self.left(iteration.finished)

    def left(self, requests: Iterable[Request]) -> None:
        """Take requests that ended, each for the record in which it arrived."""
        for request in requests:
            own = next((each for each, _ in self._open if each.owns(request)), None)
            if own is not None:
                own.ended(request)
        self._complete()

    def end(self, next_id: int) -> None:
        """End the last record: requests from ``next_id`` on are not its own."""
        self._open[-1][0].end(next_id)
        self._complete()

    def _complete(self) -> None:
        """Close the records of which no request is left."""
        for each in [each for each in self._open if each[0].complete]:
            self._open.remove(each)
            try:
                each[1].close()
            except NothingServedError:
                continue

    def give_up(self) -> None:
        """Leave nothing half-written."""
        self.broken = True
        for _, stack in self._open:
            try:
                stack.__exit__(NothingServedError, NothingServedError(), None)
            except Exception:
                continue
        self._open.clear()
