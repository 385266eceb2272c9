"""Time cut into equal bins, so that a figure stays small however long a run was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from traces.run_record import RunRecord
from traces.workload import FloatColumn

BINS = 240
LONGER = 1.5
Values = npt.NDArray[np.number]


@dataclass(frozen=True, kw_only=True, eq=False)
class TimeBins:
    """Equal bins between ``edges_s`` (float64 [bins + 1]); what lies outside does not count."""

    edges_s: FloatColumn

    @classmethod
    def of_runs(cls, runs: Mapping[str, RunRecord]) -> TimeBins:
        """Return 240 equal bins from the first arrival of the runs to where the last one ends.

        They stop at 1.5 times the shortest run, so that one that does not keep up with the arrivals, and goes
        on for hours after them, does not squeeze the others.
        """
        lengths_s = [run.end_s - run.start_s for run in runs.values()]
        end_s = min(max(lengths_s), LONGER * min(lengths_s))
        return cls(edges_s=np.linspace(0.0, end_s if end_s > 0 else 1.0, BINS + 1))

    @property
    def end_s(self) -> float:
        """The end of the last bin."""
        return float(self.edges_s[-1])

    def cut(self, runs: Mapping[str, RunRecord]) -> str:
        """Say which runs go on beyond the last bin; empty where none does."""
        longer = [
            f"{label} until {run.end_s - run.start_s:,.0f} s"
            for label, run in runs.items()
            if run.end_s - run.start_s > self.end_s * (1 + 1e-9)
        ]
        return f" Cut off at {self.end_s:,.0f} s: {', '.join(longer)}." if longer else ""

    def __len__(self) -> int:
        return len(self.edges_s) - 1

    @property
    def centres_s(self) -> FloatColumn:
        """The middle of each bin, float64 [bins]."""
        return np.asarray((self.edges_s[:-1] + self.edges_s[1:]) / 2)

    def mean(self, times_s: FloatColumn, values: Values) -> FloatColumn:
        """Return the mean of the values in each bin, NaN where there are none."""
        inside, index = self._index(times_s)
        sums = np.bincount(index, weights=values[inside], minlength=len(self))
        counts = np.bincount(index, minlength=len(self))
        empty = np.full(len(self), np.nan)
        return np.asarray(np.divide(sums, counts, out=empty, where=counts > 0))

    def quantile(self, times_s: FloatColumn, values: Values, counts: Values, share: float) -> FloatColumn:
        """Return the smallest value of each bin that at least ``share`` of its samples do not exceed.

        ``values[i]`` occurred ``counts[i]`` times; share 1 gives the maximum. NaN where a bin has none.
        """
        found = np.full(len(self), np.nan)
        inside, index = self._index(times_s)
        values, counts = values[inside], counts[inside]
        if not len(values):
            return found
        order = np.lexsort((values, index))
        index, until = index[order], np.cumsum(counts[order])
        bins, first = np.unique(index, return_index=True)
        last = np.append(first[1:], len(index)) - 1
        before = np.concatenate([[0], until])[first]
        target = before + np.maximum(np.ceil(share * (until[last] - before)), 1)
        found[bins] = values[order][np.searchsorted(until, target, side="left")]
        return found

    def _index(self, times_s: FloatColumn) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.intp]]:
        """Which times lie within the bins, and in which one each of those lies."""
        inside = (times_s >= self.edges_s[0]) & (times_s <= self.edges_s[-1])
        index = np.searchsorted(self.edges_s, times_s[inside], side="right") - 1
        return inside, np.minimum(index, len(self) - 1)
