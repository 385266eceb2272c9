"""Every candidate as a point: what it costs, what it serves, how far it came."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

from simulator.search.estimate import Estimate
from simulator.search.search import Found, Task


@dataclass(frozen=True, kw_only=True)
class Point:
    """A candidate by what the last rung that it came to found.

    Attributes
    ----------
    cost
        USD for a million output tokens at its capacity, or the number of its GPUs where devices have no price.
    rung
        How many rungs it came to.
    """

    label: str
    policy: str
    cost: float
    estimate: Estimate
    rung: int

    @property
    def capacity_per_s(self) -> float:
        """Requests/s."""
        return self.estimate.rate_per_s


def priced(task: Task) -> bool:
    """Whether all candidates have a price."""
    return all(task.objective.prices.per_hour(each.gpus) is not None for each in task.candidates.values())


def points(task: Task, found: Found) -> list[Point]:
    """Return a point for each candidate that serves anything within the SLO, in the order of the candidates."""
    latest: dict[str, tuple[int, Estimate]] = {}
    for number, step in enumerate(found.steps, start=1):
        latest |= {label: (number, each) for label, each in step.estimates.items()}
    with_prices = priced(task)
    made = [
        Point(
            label=label,
            policy=task.candidates[label].choice.name,
            cost=_cost(task, label, latest[label][1], with_prices=with_prices),
            estimate=latest[label][1],
            rung=latest[label][0],
        )
        for label in task.candidates
        if label in latest and latest[label][1].rate_per_s > 0
    ]
    return [point for point in made if isfinite(point.cost)]


def _cost(task: Task, label: str, estimate: Estimate, *, with_prices: bool) -> float:
    candidate = task.candidates[label]
    if not with_prices:
        return float(sum(candidate.gpus.values()))
    cost = task.objective.cost(candidate, estimate.rate_per_s)
    assert cost is not None
    return cost


def front(made: Sequence[Point], rung: int) -> list[Point]:
    """Return the Pareto front of those that came to the rung ``rung``: none other costs no more and serves more.

    By ascending cost. Points of earlier rungs were judged on fewer requests and are not compared with these.
    """
    best, most = [], 0.0
    ahead = (point for point in made if point.rung == rung)
    for point in sorted(ahead, key=lambda each: (each.cost, -each.capacity_per_s)):
        if point.capacity_per_s > most:
            best.append(point)
            most = point.capacity_per_s
    return best
