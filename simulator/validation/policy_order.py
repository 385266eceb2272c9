"""Whether settings come in the same order as measured and as predicted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import isnan

from simulator.verdicts import CLOSE

NOISE = CLOSE - 1
"""Share up to which two figures count as equal, as in every comparison here."""
HIGHER = ("Requests/s", "Output tokens/s", "Goodput", "Goodput, requests/s")
"""Metrics of which more is better."""
USUAL = ("TBT P99", "TTFT P50")
"""What decides where the search's objective is not among the metrics: as the winner of a comparison is found."""
Values = Mapping[str, float]
"""Metric -> value."""


@dataclass(frozen=True, kw_only=True)
class Preference:
    """Which of two settings is better.

    Attributes
    ----------
    one, other
        The settings; ``one`` is ranked before ``other`` by the search.
    predicted, measured
        The better of the two, or None where they are as good as each other in all that decides.
    by
        The metrics that told them apart, as predicted and as measured; "" where none does.
    """

    one: str
    other: str
    predicted: str | None
    measured: str | None
    by: tuple[str, str]

    @property
    def agrees(self) -> bool:
        """Whether both prefer the same, or one of the two cannot tell them apart."""
        return self.predicted is None or self.measured is None or self.predicted == self.measured


@dataclass(frozen=True, kw_only=True)
class MetricOrder:
    """The order of settings in one metric: pairs, those that come in another order, and those of them that are ties."""

    pairs: int
    reversed: int
    reversed_ties: int


def deciding(objective: object, metrics: Sequence[Values]) -> tuple[str, ...]:
    """Return the metrics by which settings are ordered: the search's objective where it is one that every setting has
    a value of, else :data:`USUAL`; the next counts where the one before cannot tell two apart."""
    names = (objective,) if isinstance(objective, str) else ()
    known = [name for name in (*names, *USUAL) if all(not isnan(each.get(name, float("nan"))) for each in metrics)]
    return tuple(known[:1]) if known and known[0] in names else tuple(known)


def preferences(
    predicted: Mapping[str, Values], measured: Mapping[str, Values], decide: Sequence[str]
) -> tuple[Preference, ...]:
    """Compare each two settings (label -> metrics), in the order in which they come."""
    return tuple(_preference(one, other, predicted, measured, decide) for one, other in combinations(predicted, 2))


def _preference(
    one: str, other: str, predicted: Mapping[str, Values], measured: Mapping[str, Values], decide: Sequence[str]
) -> Preference:
    found = [_better(one, other, runs, decide) for runs in (predicted, measured)]
    (foretold, foretold_by), (seen, seen_by) = found
    return Preference(one=one, other=other, predicted=foretold, measured=seen, by=(foretold_by, seen_by))


def _better(one: str, other: str, runs: Mapping[str, Values], decide: Sequence[str]) -> tuple[str | None, str]:
    for name in decide:
        first, second = runs[one][name], runs[other][name]
        if not equal(first, second):
            return (one if (first > second) == (name in HIGHER) else other), name
    return None, ""


def equal(one: float, other: float) -> bool:
    """Return whether two figures lie within the noise of each other."""
    return abs(one - other) <= NOISE * min(abs(one), abs(other))


def metric_orders(predicted: Mapping[str, Values], measured: Mapping[str, Values]) -> dict[str, MetricOrder]:
    """Compare the order of all settings in each metric that every one of them has."""
    everywhere = [
        name
        for name in next(iter(predicted.values()))
        if all(not isnan(each.get(name, float("nan"))) for runs in (predicted, measured) for each in runs.values())
    ]
    return {name: _order(name, predicted, measured) for name in everywhere}


def _order(name: str, predicted: Mapping[str, Values], measured: Mapping[str, Values]) -> MetricOrder:
    two = list(combinations(predicted, 2))
    turned = [
        (one, other)
        for one, other in two
        if (predicted[one][name] - predicted[other][name]) * (measured[one][name] - measured[other][name]) < 0
    ]
    ties = [any(equal(runs[one][name], runs[other][name]) for runs in (predicted, measured)) for one, other in turned]
    return MetricOrder(pairs=len(two), reversed=len(turned), reversed_ties=sum(ties))
