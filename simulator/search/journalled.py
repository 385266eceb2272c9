"""A crew that asks nobody what a journal knows already."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from simulator.search.journal import Journal
from simulator.trials.crew import Crew
from simulator.trials.plan import Answer, TrialError
from simulator.trials.trial import Trial

OnAnswers = Callable[[int], None]
"""Called with how many trials were simulated, now and then."""


class Journalled:
    """A crew whose answers are in a journal before they are given, and which runs no trial twice.

    Failures (:class:`simulator.trials.plan.TrialError`) are given and not kept: who goes on from the journal tries
    again. Two plans may ask for one trial at the same time: it is run once, for both.
    """

    def __init__(self, crew: Crew, journal: Journal, on_answers: OnAnswers = lambda _count: None) -> None:
        self._crew = crew
        self._journal = journal
        self._on_answers = on_answers
        self._known: list[tuple[int, Answer]] = []
        self._asked: dict[str, list[int]] = {}
        self._trials: dict[int, Trial] = {}

    @property
    def places(self) -> int:
        """As many as the crew has."""
        return self._crew.places

    def start(self, ticket: int, trial: Trial) -> None:
        """Take a trial."""
        known = self._journal.get(trial)
        if known is not None:
            self._known.append((ticket, known))
            return
        tickets = self._asked.setdefault(trial.key, [])
        tickets.append(ticket)
        if len(tickets) == 1:
            self._trials[ticket] = trial
            self._crew.start(ticket, trial)

    def wait(self) -> Sequence[tuple[int, Answer]]:
        """Return trials that are over, by ticket."""
        if self._known:
            known, self._known = self._known, []
            return known
        over = self._crew.wait()
        answered = [(self._trials.pop(ticket), answer) for ticket, answer in over]
        self._journal.add((trial, answer) for trial, answer in answered if not isinstance(answer, TrialError))
        self._on_answers(len(answered))
        return [(ticket, answer) for trial, answer in answered for ticket in self._asked.pop(trial.key)]
