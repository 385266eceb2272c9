"""Distributions: mean, percentiles and maximum of samples, counted samples, and quantities over time."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan

import numpy as np
import numpy.typing as npt

from traces.workload import FloatColumn, IntColumn

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
        return cls._from(len(values), values.mean(), percentiles(values, PERCENTS), values.max())

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
    def over_time(cls, counts: IntColumn, durations: FloatColumn, unit: int = 1) -> Distribution:
        """Return the distribution of a quantity that was ``counts[i]`` over ``unit`` for ``durations[i]`` seconds."""
        held = durations > 0
        if not held.all():
            counts, durations = counts[held], durations[held]
        if not len(counts):
            return EMPTY
        mean = np.average(counts / unit, weights=durations)
        return cls._from(len(counts), mean, _time_percentiles(counts, durations) / unit, counts.max() / unit)

    @classmethod
    def _from(cls, count: int, mean: float, percentiles: FloatColumn, most: float) -> Distribution:
        p50, p90, p95, p99 = (float(value) for value in percentiles)
        return cls(count=count, mean=float(mean), p50=p50, p90=p90, p95=p95, p99=p99, max=float(most))


EMPTY = Distribution(count=0, mean=nan, p50=nan, p90=nan, p95=nan, p99=nan, max=nan)


def percentiles(values: Values, percents: npt.ArrayLike) -> FloatColumn:
    """Return percentiles of samples, at least one: those of ``numpy.percentile``, in its very operations.

    (Without what that imports, which takes longer than the metrics of many a run.)
    """
    below, above, share = _neighbours(len(values), percents)
    ordered = np.partition(values, sorted({*below.tolist(), *above.tolist()}))
    return _between(ordered[below], ordered[above], share)


def counted_percentiles(values: Values, counts: Values, percents: npt.ArrayLike) -> FloatColumn:
    """Return percentiles of samples of which ``values[i]`` occurred ``counts[i]`` times, at least one in all.

    Exactly ``percentiles(numpy.repeat(values, counts), percents)``, without making those.
    """
    order = np.argsort(values)
    ordered, last = values[order].astype(np.float64, copy=False), np.cumsum(counts[order], dtype=np.int64)
    below, above, share = _neighbours(int(last[-1]), percents)
    low, high = (ordered[np.searchsorted(last, place, side="right")] for place in (below, above))
    return _between(low, high, share)


def _neighbours(count: int, percents: npt.ArrayLike) -> tuple[IntColumn, IntColumn, FloatColumn]:
    """The two samples in order between which each percentile lies, and how far from the first to the second."""
    position = (count - 1) * (np.atleast_1d(np.asarray(percents, dtype=np.float64)) / 100)
    below = np.floor(position).astype(np.int64)
    return below, np.minimum(below + 1, count - 1), position - below


def _between(low: Values, high: Values, share: FloatColumn) -> FloatColumn:
    between = np.where(share < 0.5, low + (high - low) * share, high - (high - low) * (1 - share))
    return np.asarray(between, dtype=np.float64)


def _time_percentiles(counts: IntColumn, durations: FloatColumn) -> FloatColumn:
    small = counts.min() >= 0 and counts.max() < 1 << 16
    order = np.argsort(counts.astype(np.uint16) if small else counts, kind="stable")
    until = durations[order]
    np.cumsum(until, out=until)
    index = np.searchsorted(until, until[-1] * (np.array(PERCENTS) / 100), side="left")
    return np.asarray(counts[order[np.minimum(index, len(counts) - 1)]], dtype=np.float64)
