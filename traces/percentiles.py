"""Distributions: mean, percentiles and maximum of samples, counted samples, and quantities over time."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan

import numpy as np
import numpy.typing as npt

from traces.workload import FloatColumn

PERCENTS = (50.0, 90.0, 95.0, 99.0)
Values = npt.NDArray[np.number]


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """What a set of samples looks like; NaN throughout where there are none.

    Percentiles of samples interpolate linearly between the two nearest ones (numpy's default, definition 7 of
    Hyndman and Fan, 1996). Percentiles over time are the smallest value that was not exceeded for that share
    of the time.
    """

    count: int
    mean: float
    p50: float
    p90: float
    p95: float
    p99: float
    max: float

    @classmethod
    def of(cls, values: Values) -> Distribution:
        """Return the distribution of samples [samples]."""
        if not len(values):
            return EMPTY
        return cls._from(len(values), values.mean(), np.percentile(values, PERCENTS), values.max())

    @classmethod
    def of_counts(cls, values: Values, counts: Values) -> Distribution:
        """Return the distribution of samples of which ``values[i]`` occurred ``counts[i]`` times.

        Exactly that of ``numpy.repeat(values, counts)``, without making it.
        """
        if not len(values):
            return EMPTY
        mean = np.average(values, weights=counts)
        return cls._from(int(counts.sum()), mean, counted_percentiles(values, counts, PERCENTS), values.max())

    @classmethod
    def over_time(cls, values: Values, durations: Values) -> Distribution:
        """Return the distribution of a quantity that was ``values[i]`` for ``durations[i]`` seconds."""
        held = durations > 0
        values, durations = values[held], durations[held]
        if not len(values):
            return EMPTY
        mean = np.average(values, weights=durations)
        return cls._from(len(values), mean, _time_percentiles(values, durations), values.max())

    @classmethod
    def _from(cls, count: int, mean: float, percentiles: FloatColumn, most: float) -> Distribution:
        p50, p90, p95, p99 = (float(value) for value in percentiles)
        return cls(count=count, mean=float(mean), p50=p50, p90=p90, p95=p95, p99=p99, max=float(most))


EMPTY = Distribution(count=0, mean=nan, p50=nan, p90=nan, p95=nan, p99=nan, max=nan)


def counted_percentiles(values: Values, counts: Values, percents: npt.ArrayLike) -> FloatColumn:
    """Return percentiles of samples of which ``values[i]`` occurred ``counts[i]`` times, at least one in all.

    Linear between the two nearest samples, in the very operations of ``numpy.percentile``, so that the result
    is that of ``numpy.percentile(numpy.repeat(values, counts), percents)``.
    """
    order = np.argsort(values, kind="stable")
    ordered, last = values[order].astype(np.float64), np.cumsum(counts[order].astype(np.int64))
    position = (last[-1] - 1) * (np.atleast_1d(np.asarray(percents, dtype=np.float64)) / 100)
    below = np.floor(position).astype(np.int64)
    low = ordered[np.searchsorted(last, below, side="right")]
    high = ordered[np.searchsorted(last, np.minimum(below + 1, last[-1] - 1), side="right")]
    share = position - below
    between = np.where(share < 0.5, low + (high - low) * share, high - (high - low) * (1 - share))
    return np.asarray(between, dtype=np.float64)


def _time_percentiles(values: Values, durations: Values) -> FloatColumn:
    order = np.argsort(values, kind="stable")
    until = np.cumsum(durations[order])
    index = np.searchsorted(until, until[-1] * (np.array(PERCENTS) / 100), side="left")
    return np.asarray(values[order][np.minimum(index, len(values) - 1)], dtype=np.float64)
