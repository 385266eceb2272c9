"""Which policy is best, and in what order they come: by the measurement and by the prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import isnan, nan

from simulator.scoreboard import TIE
from simulator.validation.agreement import Case, Pair
from simulator.verdicts import CLOSE, keeping_up, winner
from traces.metrics import Metrics

DECIDING = ("TBT P99", "TTFT P50", "Output tokens/s")
"""What the winner of a comparison is found by (:func:`simulator.verdicts.winner`)."""
Runs = Mapping[str, Metrics]


@dataclass(frozen=True, kw_only=True)
class Winner:
    """The best policy of a load, by the measurement and by the prediction.

    Attributes
    ----------
    load
        The load at which both were chosen.
    measured, predicted
        The policies.
    keep_up_measured, keep_up_predicted
        The policies that keep up with the arrivals.
    cost
        Of :data:`DECIDING`: measured under the predicted policy over measured under the measured best, - 1: what it
        costs to trust the prediction. All 0 where they are the same policy.
    tie
        Whether the two are the same policy, or lie closer together than the noise in TBT P99 and TTFT P50 as
        measured, so that the measurement itself hardly tells them apart.
    """

    load: str
    measured: str
    predicted: str
    keep_up_measured: tuple[str, ...]
    keep_up_predicted: tuple[str, ...]
    cost: Mapping[str, float]
    tie: bool

    @property
    def agree(self) -> bool:
        """Whether both are the same policy."""
        return self.measured == self.predicted


@dataclass(frozen=True, kw_only=True)
class Order:
    """Whether two orders of the same cases agree in one metric.

    Attributes
    ----------
    tau
        Kendall's tau-b between measured and predicted; NaN for fewer than two cases, or where all are equal.
    pairs
        Pairs of cases.
    ties
        Pairs that lie closer together than the noise as measured: which of them comes first means nothing.
    reversed, reversed_ties
        Pairs that the two order differently, and those of them that are such ties.
    """

    tau: float
    pairs: int
    ties: int
    reversed: int
    reversed_ties: int


def winners(
    measured: Mapping[str, Runs], predicted: Mapping[str, Runs], cases: Sequence[Case], noise: float
) -> dict[str, Winner]:
    """Return the best policy of each load (load -> policy -> metrics), by the rule of every comparison.

    Parameters
    ----------
    noise
        Share by which two measured figures must differ to count as different.
    """
    return {
        load: _winner(load, measured[load], predicted[load], {c.policy: c for c in cases if c.load == load}, noise)
        for load in measured
    }


def _winner(load: str, measured: Runs, predicted: Runs, cases: Mapping[str, Case], noise: float) -> Winner:
    best, chosen = winner(measured), winner(predicted)
    cost = {
        name: Pair(
            measured=cases[best].metrics[name].measured, predicted=cases[chosen].metrics[name].measured
        ).deviation
        for name in DECIDING
    }
    return Winner(
        load=load,
        measured=best,
        predicted=chosen,
        keep_up_measured=tuple(keeping_up(measured)),
        keep_up_predicted=tuple(keeping_up(predicted)),
        cost=cost,
        tie=best == chosen or all(abs(cost[name]) <= noise for name in ("TBT P99", "TTFT P50")),
    )


def overall(found: Mapping[str, Winner]) -> tuple[str, str]:
    """Return the policy that is best over all loads: (measured, predicted).

    It is the winner at the highest load with which any policy keeps up; where none ever does, at the lowest. A
    policy earns its place near saturation: below it most of them do well. Measurement and prediction each find
    that load for themselves.
    """
    loads = list(found.values())
    measured = [each.measured for each in loads if each.keep_up_measured] or [loads[0].measured]
    predicted = [each.predicted for each in loads if each.keep_up_predicted] or [loads[0].predicted]
    return measured[-1], predicted[-1]


def order(cases: Sequence[Case], metric: str, noise: float) -> Order:
    """Compare the order of ``cases`` in a metric as measured with that as predicted.

    The tau is that of :func:`scipy.stats.kendalltau` (tau-b, which corrects for ties).
    """
    from scipy.stats import kendalltau

    known = [pair for case in cases if not isnan((pair := case.metrics[metric]).deviation)]
    distinct = min(len({pair.measured for pair in known}), len({pair.predicted for pair in known}))
    two = list(combinations(known, 2))
    ties = [_tied(one, other, noise) for one, other in two]
    turned = [_reversed(one, other) for one, other in two]
    tau = kendalltau([p.measured for p in known], [p.predicted for p in known]).statistic if distinct > 1 else nan
    return Order(
        tau=float(tau),
        pairs=len(two),
        ties=sum(ties),
        reversed=sum(turned),
        reversed_ties=sum(tie and turn for tie, turn in zip(ties, turned, strict=True)),
    )


def _tied(one: Pair, other: Pair, noise: float) -> bool:
    return abs(one.measured - other.measured) <= noise * min(one.measured, other.measured)


def _reversed(one: Pair, other: Pair) -> bool:
    return (one.measured - other.measured) * (one.predicted - other.predicted) < 0


def noise_of(iteration_error: float) -> float:
    """Return the share up to which two measured figures count as equal.

    It is the median iteration error: a prediction whose iterations are this far off cannot tell apart what lies
    closer. At least 0.5 %, and at most the 5 % that the rule for winners calls equal, so that a poor prediction is
    no excuse for itself.
    """
    return min(max(TIE, 0.0 if isnan(iteration_error) else iteration_error), CLOSE - 1)
