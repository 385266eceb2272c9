"""How sure values are: intervals from draws of what is not known for sure, and of a mean."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, floor, isfinite, log, sqrt

from policies.prediction import Interval

COVERAGE = 0.9
"""Of every interval, unless told otherwise."""
ROUNDING = 1e-9


def of_draws(value: float, draws: Sequence[float], coverage: float = COVERAGE) -> Interval:
    """Return the interval that one more draw lies in with ``coverage``, by ranks, widened to hold the value.

    Of n draws and the true value, exchangeable, none is more likely to be the least than another: the true value is
    below the k-th least with a chance of k / (n + 1), whatever the distribution. The interval lies between the ranks by
    which each side is missed with (1 - coverage) / 2. With 19 draws the least and the most of them are the bounds of
    90 %; with fewer they cover less. Draws without a finite value do not count.
    """
    known = sorted(each for each in draws if isfinite(each))
    if not known:
        return Interval(value=value, low=value, high=value)
    rank = max(1, floor((len(known) + 1) * (1 - coverage) / 2 + ROUNDING))
    return Interval(value=value, low=min(value, known[rank - 1]), high=max(value, known[-rank]))


def widened(interval: Interval, other: Interval) -> Interval:
    """Return an interval widened by another one for the same value, whose errors are independent of its own.

    On each side the distances in logs add as squares do. Values above 0; a bound of 0 or infinity stays.
    """
    if interval.value <= 0 or other.value <= 0:
        return interval
    low = _together(interval.value, interval.low, other.value, other.low)
    high = _together(interval.value, interval.high, other.value, other.high)
    return Interval(value=interval.value, low=low, high=high)


def _together(value: float, bound: float, other: float, other_bound: float) -> float:
    for each in (bound, other_bound):
        if each <= 0 or not isfinite(each):
            return each
    half = sqrt(log(bound / value) ** 2 + log(other_bound / other) ** 2)
    return value * exp(half if bound > value or other_bound > other else -half)


def half_width(values: Sequence[float], coverage: float = COVERAGE) -> float:
    """Return half the width of Student's interval of the mean; 0 for a single value."""
    from scipy.special import stdtrit

    count = len(values)
    if count < 2:
        return 0.0
    mean = sum(values) / count
    variance = sum((value - mean) ** 2 for value in values) / (count - 1)
    return float(stdtrit(count - 1, 0.5 + coverage / 2)) * sqrt(variance / count)
