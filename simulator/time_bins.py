"""Time cut into equal bins, so that a figure stays small however long a run was."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from traces.workload import FloatColumn

Values = npt.NDArray[np.number]


@dataclass(frozen=True, kw_only=True, eq=False)
class TimeBins:
    """Equal bins between ``edges_s`` (float64 [bins + 1]); what lies outside falls into the nearest one."""

    edges_s: FloatColumn

    @classmethod
    def between(cls, start_s: float, end_s: float, count: int) -> TimeBins:
        """Return ``count`` equal bins from ``start_s`` to ``end_s`` (a second, if that is not later)."""
        return cls(edges_s=np.linspace(start_s, end_s if end_s > start_s else start_s + 1.0, count + 1))

    def __len__(self) -> int:
        return len(self.edges_s) - 1

    @property
    def centres_s(self) -> FloatColumn:
        """The middle of each bin, float64 [bins]."""
        return np.asarray((self.edges_s[:-1] + self.edges_s[1:]) / 2)

    def index(self, times_s: FloatColumn) -> npt.NDArray[np.intp]:
        """Return the bin of each time."""
        return np.clip(np.searchsorted(self.edges_s, times_s, side="right") - 1, 0, len(self) - 1)

    def mean(self, times_s: FloatColumn, values: Values) -> FloatColumn:
        """Return the mean of the values in each bin, NaN where there are none."""
        index = self.index(times_s)
        sums = np.bincount(index, weights=values, minlength=len(self))
        counts = np.bincount(index, minlength=len(self))
        empty = np.full(len(self), np.nan)
        return np.asarray(np.divide(sums, counts, out=empty, where=counts > 0))

    def quantile(self, times_s: FloatColumn, values: Values, counts: Values, share: float) -> FloatColumn:
        """Return the smallest value of each bin that at least ``share`` of its samples do not exceed.

        ``values[i]`` occurred ``counts[i]`` times; share 1 gives the maximum. NaN where a bin has none.
        """
        found = np.full(len(self), np.nan)
        if not len(values):
            return found
        index = self.index(times_s)
        order = np.lexsort((values, index))
        index, until = index[order], np.cumsum(counts[order])
        bins, first = np.unique(index, return_index=True)
        last = np.append(first[1:], len(index)) - 1
        before = np.concatenate([[0], until])[first]
        target = before + np.maximum(np.ceil(share * (until[last] - before)), 1)
        found[bins] = values[order][np.searchsorted(until, target, side="left")]
        return found
