"""The whole search: sort candidates out, then predict what the best three will do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from simulator.capacity.slo import Slo
from simulator.search.estimate import Estimate
from simulator.search.halving import PODIUM, Step, halve
from simulator.search.lead import Lead, lead
from simulator.search.objective import Objective
from simulator.search.podium import Placed, place, prediction_rate
from simulator.search.rung import Rung
from simulator.trials.candidate import Candidate
from simulator.trials.crew import Rounds
from traces.demand import Demand


@dataclass(frozen=True, kw_only=True)
class Task:
    """All that decides what is found.

    Attributes
    ----------
    candidates
        By label.
    ladder
        The rungs, the last of which has the whole demand.
    seed
        Of the requests for which metrics are predicted.
    draws
        Of the cost model, for the intervals.
    """

    candidates: Mapping[str, Candidate]
    demand: Demand
    slo: Slo
    objective: Objective
    ladder: Sequence[Rung]
    seed: int
    draws: int


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a search found.

    Attributes
    ----------
    steps
        The rungs, one after the other.
    rate_per_s
        The rate for which metrics are predicted: the one asked for, or a share of the winner's capacity.
    podium
        What is predicted of the winner and the runners-up, by label, the best first.
    leads
        Of the winner over each runner-up.
    """

    steps: Sequence[Step]
    rate_per_s: float
    podium: Mapping[str, Placed]
    leads: Sequence[Lead]

    @property
    def winner(self) -> str:
        """The label of the best candidate."""
        return next(iter(self.podium))

    @property
    def finals(self) -> Mapping[str, Estimate]:
        """What the last rung found, the best first."""
        return self.steps[-1].estimates


def search(task: Task) -> Rounds[Found]:
    """Return the rounds of a search; what it finds depends on the answers to its trials alone.

    Raises
    ------
    InputError
        If nothing meets the SLO, or reaches the rate that is asked for.
    """
    steps = yield from halve(task.candidates, task.demand, task.slo, task.objective, task.ladder)
    finals = steps[-1].estimates
    best, *_ = labels = steps[-1].kept[:PODIUM]
    rate_per_s = task.objective.request_rate_per_s or prediction_rate(finals[best])
    podium = yield {
        label: place(
            task.candidates[label],
            finals[label],
            task.demand,
            task.slo,
            rate_per_s,
            seed=task.seed,
            draws=task.draws,
        )
        for label in labels
    }
    return Found(
        steps=steps,
        rate_per_s=rate_per_s,
        podium=podium,
        leads=[_lead(task, finals, podium, best, other) for other in labels[1:]],
    )


def _lead(task: Task, finals: Mapping[str, Estimate], podium: Mapping[str, Placed], winner: str, other: str) -> Lead:
    return lead(
        over=other,
        of=task.objective.compared,
        factor=task.objective.factor(task.candidates[winner], task.candidates[other]),
        seeds=(finals[winner].seeds_per_s, finals[other].seeds_per_s),
        draws=(podium[winner].drawn_per_s, podium[other].drawn_per_s),
    )
