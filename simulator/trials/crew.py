"""Who runs trials, several at once, and many plans that one crew carries out."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

from simulator.trials.plan import Answer, Plan, answer, side_by_side
from simulator.trials.trial import Trial

Result = TypeVar("Result")
Plans = Mapping[str, Plan[Any]]
Rounds = Generator[Plans, Mapping[str, Any], Result]
"""Yields plans by name, is sent what each of them found, and returns what came out of all: a round waits for the last
of its plans, and within a round no plan waits for another."""
OnResult = Callable[[str, Any], None]
"""Called with the name of a plan and what it found, in whatever order plans end."""


class Crew(Protocol):
    """Runs trials, and says of each when it is over, in whatever order."""

    @property
    def places(self) -> int:
        """Trials that it takes at once: one for everybody at work, and some to go on with."""

    def start(self, ticket: int, trial: Trial) -> None:
        """Take a trial, known from here on by its ticket; for at most :attr:`places` at once."""

    def wait(self) -> Sequence[tuple[int, Answer]]:
        """Wait until at least one trial is over; return those that are, by ticket."""


class Alone:
    """A crew of this process."""

    places = 1

    def __init__(self) -> None:
        self._taken: deque[tuple[int, Trial]] = deque()

    def start(self, ticket: int, trial: Trial) -> None:
        """Take a trial."""
        self._taken.append((ticket, trial))

    def wait(self) -> list[tuple[int, Answer]]:
        """Run the trial that was taken first."""
        ticket, trial = self._taken.popleft()
        return [(ticket, answer(trial))]


def as_plan(rounds: Rounds[Result]) -> Plan[Result]:
    """Return rounds as one plan, in which all plans of a round take their steps together."""
    try:
        plans = next(rounds)
        while True:
            plans = rounds.send((yield from side_by_side(plans)))
    except StopIteration as end:
        result: Result = end.value
        return result


def carry_out_rounds(rounds: Rounds[Result], crew: Crew, on_result: OnResult = lambda _name, _result: None) -> Result:
    """Carry out one round after the other, each as :func:`carry_out_all` does, and return what came out."""
    try:
        plans = next(rounds)
        while True:
            plans = rounds.send(carry_out_all(plans, crew, on_result))
    except StopIteration as end:
        result: Result = end.value
        return result


def carry_out_all(
    plans: Mapping[str, Plan[Result]], crew: Crew, on_result: OnResult = lambda _name, _result: None
) -> dict[str, Result]:
    """Carry out plans that know nothing of each other, and return what each found, in the order of ``plans``.

    A plan goes on as soon as its own answers are there, and a new one is begun only where the crew has places left:
    whoever is at work stays with few candidates at a time, whose cost models it has in memory. A plan that computes for
    long yields no trials now and then, so that the crew gets new ones meanwhile. What is found does not depend on any
    of this.
    """
    return _Rounds(plans, crew, on_result).run()


class _Rounds(Generic[Result]):
    """The state of :func:`carry_out_all`."""

    def __init__(self, plans: Mapping[str, Plan[Result]], crew: Crew, on_result: OnResult) -> None:
        self._plans = plans
        self._crew = crew
        self._on_result = on_result
        self._unopened = deque(plans)
        self._paused = deque[str]()
        self._ready: deque[tuple[str, int, Trial]] = deque()
        self._answers: dict[str, list[Answer | None]] = {}
        self._running: dict[int, tuple[str, int]] = {}
        self._tickets = 0
        self._results: dict[str, Result] = {}

    def run(self) -> dict[str, Result]:
        while len(self._results) < len(self._plans):
            self._fill()
            if self._paused:
                self._advance(self._paused.popleft(), [])
                self._fill()
            if self._running:
                for ticket, answered in self._crew.wait():
                    self._take(*self._running.pop(ticket), answered)
        return {name: self._results[name] for name in self._plans}

    def _fill(self) -> None:
        while len(self._running) < self._crew.places:
            while not self._ready and self._unopened:
                self._advance(self._unopened.popleft(), None)
            if not self._ready:
                return
            name, place, trial = self._ready.popleft()
            self._tickets += 1
            self._running[self._tickets] = name, place
            self._crew.start(self._tickets, trial)

    def _take(self, name: str, place: int, answered: Answer) -> None:
        answers = self._answers[name]
        answers[place] = answered
        known = [each for each in answers if each is not None]
        if len(known) == len(answers):
            self._advance(name, known)

    def _advance(self, name: str, answers: Sequence[Answer] | None) -> None:
        """Let a plan take steps until it asks for trials or is over; what is begun comes before what is not."""
        plan = self._plans[name]
        try:
            trials = next(plan) if answers is None else plan.send(answers)
        except StopIteration as end:
            self._results[name] = end.value
            self._on_result(name, end.value)
            return
        if not trials:
            self._paused.append(name)
            return
        self._answers[name] = [None] * len(trials)
        self._ready.extendleft(reversed([(name, place, trial) for place, trial in enumerate(trials)]))
