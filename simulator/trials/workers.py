"""Processes that run trials: they outlive a trial that kills one of them, and end with the process that began them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait

from simulator.child_processes import one_thread, signals_masked
from simulator.trials.plan import Answer, TrialError, answer
from simulator.trials.trial import Trial
from traces.errors import InputError

OnAnswer = Callable[[Trial, Answer], None]
MOST_DEATHS = 2
"""Processes that may die over a trial before it is given up."""
MOST_FALSE_STARTS = 3
"""Processes in a row that may die before they are ready."""


def cores() -> int:
    """Return how many processes may compute at once."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def processes(count: int | None = None, on_answer: OnAnswer = lambda _trial, _answer: None) -> Iterator[Pool]:
    """Yield what runs trials in ``count`` processes (by default one a core); ``on_answer`` sees each as it comes."""
    pool = Pool(count or cores(), on_answer)
    try:
        yield pool
    finally:
        pool.close()


class Pool:
    """Processes that stay; a runner (:data:`simulator.trials.plan.Runner`) and a crew (see there).

    A process that dies, for want of memory or killed, is replaced, and what it ran is run again. A trial over which
    :data:`MOST_DEATHS` processes died is answered with an error. A trial goes by preference to a process whose last
    one had the same candidate, whose cost model it has at hand.
    """

    def __init__(self, count: int, on_answer: OnAnswer) -> None:
        self._count = count
        self._on_answer = on_answer
        self._workers: dict[Connection, _Worker] = {}
        self._waiting: deque[tuple[int, Trial]] = deque()
        self._deaths: Counter[int] = Counter()
        self._false_starts = 0

    @property
    def places(self) -> int:
        """Two for each process: one that runs, and one to go on with."""
        return 2 * self._count

    def __call__(self, trials: Sequence[Trial]) -> list[Answer]:
        """Run trials and return their answers in order."""
        for ticket, trial in enumerate(trials):
            self.start(ticket, trial)
        answers: dict[int, Answer] = {}
        while len(answers) < len(trials):
            answers.update(self.wait())
        return [answers[ticket] for ticket in range(len(trials))]

    def start(self, ticket: int, trial: Trial) -> None:
        """Take a trial."""
        self._waiting.append((ticket, trial))
        self._hand_out()

    def wait(self) -> list[tuple[int, Answer]]:
        """Wait until at least one trial is over; return those that are, by ticket."""
        over: list[tuple[int, Answer]] = []
        while not over:
            self._hand_out()
            for connection in wait(list(self._workers)):
                assert isinstance(connection, Connection)
                over += self._listen(self._workers[connection])
        self._hand_out()
        return over

    def close(self) -> None:
        """End all processes, whatever they are at."""
        for worker in self._workers.values():
            worker.end()
        self._workers.clear()

    def _hand_out(self) -> None:
        while len(self._workers) < min(self._count, len(self._waiting) + self._busy()):
            with signals_masked(), one_thread():
                worker = _Worker()
                self._workers[worker.connection] = worker
        for worker in self._workers.values():
            if worker.idle and self._waiting:
                worker.take(*self._next_for(worker))

    def _busy(self) -> int:
        return sum(worker.task is not None for worker in self._workers.values())

    def _next_for(self, worker: _Worker) -> tuple[int, Trial]:
        for index, (_, trial) in enumerate(self._waiting):
            if trial.candidate == worker.candidate:
                task = self._waiting[index]
                del self._waiting[index]
                return task
        return self._waiting.popleft()

    def _listen(self, worker: _Worker) -> list[tuple[int, Answer]]:
        """Take what a process has to say: that it is ready, an answer, or by its silence that it died."""
        try:
            answered = worker.connection.recv()
        except (EOFError, OSError):  # OSError: it died with half an answer said
            return self._bury(worker)
        self._false_starts = 0
        if worker.task is None:
            worker.ready = True
            return []
        ticket, trial = worker.task
        worker.task = None
        self._deaths.pop(ticket, None)
        self._on_answer(trial, answered)
        return [(ticket, answered)]

    def _bury(self, worker: _Worker) -> list[tuple[int, Answer]]:
        worker.end()
        del self._workers[worker.connection]
        how = _how(worker.process.exitcode)
        if worker.task is None:
            self._false_starts += not worker.ready
            if self._false_starts == MOST_FALSE_STARTS:
                raise InputError(f"processes end before they are ready ({how})", expected="that they can start")
            return []
        ticket, trial = worker.task
        self._deaths[ticket] += 1
        if self._deaths[ticket] < MOST_DEATHS:
            self._waiting.appendleft(worker.task)
            return []
        del self._deaths[ticket]
        given_up = gave_up(trial, how, MOST_DEATHS)
        self._on_answer(trial, given_up)
        return [(ticket, given_up)]


class _Worker:
    """A process, what it runs, and the candidate that it ran last."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, there = context.Pipe()
        self.process = context.Process(target=_serve, args=(there,), daemon=True)
        self.process.start()
        there.close()
        self.ready = False
        self.task: tuple[int, Trial] | None = None
        self.candidate: object = None

    @property
    def idle(self) -> bool:
        return self.ready and self.task is None

    def take(self, ticket: int, trial: Trial) -> None:
        self.task, self.candidate = (ticket, trial), trial.candidate
        with suppress(ConnectionError):  # it has died: its silence says so
            self.connection.send(trial)

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()


def gave_up(trial: Trial, how: str, times: int) -> TrialError:
    """Return the answer to a trial over which so many processes died, or machines were lost."""
    what = f"the process that simulates it died {times} times ({how})"
    where = f"{trial.candidate.label} at {trial.rate_per_s:g} requests/s, seed {trial.seed}"
    return TrialError(what, where=where, expected="enough memory for it, perhaps with fewer workers")


def answer_always(trial: Trial) -> Answer:
    """Return what comes out of a trial; where that is an exception, print it and return it as an error."""
    try:
        return answer(trial)
    except (Exception, MemoryError) as error:  # whatever a trial does, the others go on
        traceback.print_exc()
        what = f"the simulation failed ({type(error).__name__}: {error})"
        return TrialError(what, where=trial.candidate.label, expected="none to: this is a defect of the program")


def _serve(connection: Connection) -> None:
    """Answer trials until there is nobody to ask."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with suppress(EOFError, OSError):
        connection.send(None)
        while True:
            connection.send(answer_always(connection.recv()))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _how(exitcode: int | None) -> str:
    if exitcode is None or exitcode >= 0:
        return f"exit status {exitcode}"
    name = signal.Signals(-exitcode).name
    return f"{name}, perhaps for want of memory" if name == "SIGKILL" else name
