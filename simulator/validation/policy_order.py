"""Whether settings come in the same order as measured and as predicted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from simulator.verdicts import CLOSE

NOISE = CLOSE - 1
"""Share up to which two figures count as equal, as in every comparison here."""
HIGHER = ("Requests/s", "Output tokens/s", "Goodput", "Goodput, requests/s")
"""Metrics of which more is better."""
OBJECTIVES = {"goodput-per-gpu": "Goodput, requests/s"}
"""Objectives of a search that a replay measures, all settings being on the same device."""
USUAL = ("TBT P99", "TTFT P50")
"""What decides where the search's objective is not among the metrics: as the winner of a comparison is found."""
Values = Mapping[str, Sequence[float]]
"""Metric -> its value, or one of each replay."""


@dataclass(frozen=True, kw_only=True)
class Preference:
    """Which of two settings is better.

    Attributes
    ----------
    one, other
        The settings; ``one`` is ranked before ``other`` by the search.
    by
        The first metric that decides in which prediction and measurement both tell them apart; "" where there is none.
    predicted, measured
        The better of the two in that metric; None where there is none.
    """

    one: str
    other: str
    by: str = ""
    predicted: str | None = None
    measured: str | None = None

    @property
    def agrees(self) -> bool:
        """Whether both prefer the same, or nothing tells the two apart."""
        return self.predicted == self.measured


@dataclass(frozen=True, kw_only=True)
class MetricOrder:
    """The order of settings in one metric: pairs, those that come in another order, and those of them that are ties."""

    pairs: int
    reversed: int
    reversed_ties: int


def deciding(objective: object, metrics: Sequence[Values]) -> tuple[str, ...]:
    """Return the metrics by which settings are ordered: the search's objective where it is one that every setting has
    a value of, else :data:`USUAL`; the next counts where the one before does not tell two apart."""
    wanted = OBJECTIVES.get(str(objective), str(objective))
    if _everywhere(wanted, metrics):
        return (wanted,)
    return tuple(name for name in USUAL if _everywhere(name, metrics))


def _everywhere(name: str, metrics: Sequence[Values]) -> bool:
    return all(name in each and not np.isnan(each[name]).any() for each in metrics)


def preferences(
    predicted: Mapping[str, Values], measured: Mapping[str, Values], decide: Sequence[str]
) -> tuple[Preference, ...]:
    """Compare each two settings (label -> metrics), in the order in which they come."""
    return tuple(_preference(one, other, predicted, measured, decide) for one, other in combinations(predicted, 2))


def _preference(
    one: str, other: str, predicted: Mapping[str, Values], measured: Mapping[str, Values], decide: Sequence[str]
) -> Preference:
    for name in decide:
        foretold, seen = (_better(runs[one][name], runs[other][name], name) for runs in (predicted, measured))
        if foretold and seen:
            named = {1: one, -1: other}
            return Preference(one=one, other=other, by=name, predicted=named[foretold], measured=named[seen])
    return Preference(one=one, other=other)


def _better(one: Sequence[float], other: Sequence[float], metric: str) -> int:
    """Return 1 where the first is better, -1 where the second is, 0 where they cannot be told apart."""
    if equal(one, other):
        return 0
    return 1 if (np.median(one) > np.median(other)) == (metric in HIGHER) else -1


def equal(one: Sequence[float], other: Sequence[float]) -> bool:
    """Return whether two settings cannot be told apart: their medians lie within the noise of each other, or not every
    replay of one is better than every replay of the other."""
    low, high = sorted((one, other), key=np.median)
    middle = float(np.median(low)), float(np.median(high))
    return max(low) >= min(high) or middle[1] - middle[0] <= NOISE * abs(middle[0])


def metric_orders(predicted: Mapping[str, Values], measured: Mapping[str, Values]) -> dict[str, MetricOrder]:
    """Compare the order of all settings in each metric that every one of them has."""
    runs = [*predicted.values(), *measured.values()]
    return {name: _order(name, predicted, measured) for name in runs[0] if _everywhere(name, runs)}


def _order(name: str, predicted: Mapping[str, Values], measured: Mapping[str, Values]) -> MetricOrder:
    two = list(combinations(predicted, 2))
    turned = [(one, other) for one, other in two if _signs(name, one, other, predicted, measured) < 0]
    ties = [any(equal(runs[one][name], runs[other][name]) for runs in (predicted, measured)) for one, other in turned]
    return MetricOrder(pairs=len(two), reversed=len(turned), reversed_ties=sum(ties))


def _signs(name: str, one: str, other: str, *both: Mapping[str, Values]) -> float:
    """Return the product of the differences of two settings; below 0 where they come in another order."""
    return float(np.prod([np.median(runs[one][name]) - np.median(runs[other][name]) for runs in both]))
