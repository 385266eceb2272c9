"""Time cut into equal bins, so that a figure stays small however long a run was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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

    def place(self, times_s: FloatColumn) -> npt.NDArray[np.int16]:
        """Return the bin of each time, -1 outside of all."""
        place = (np.searchsorted(self.edges_s, times_s, side="right") - 1).astype(np.int16)
        place[times_s == self.edges_s[-1]] = len(self) - 1
        place[place == len(self)] = -1
        return place

    def mean(self, times_s: FloatColumn, values: Values) -> FloatColumn:
        """Return the mean of the values in each bin, NaN where there are none."""
        place = self.place(times_s)
        inside = place >= 0
        sums = np.bincount(place[inside], weights=values[inside], minlength=len(self))
        counts = np.bincount(place[inside], minlength=len(self))
        empty = np.full(len(self), np.nan)
        return np.asarray(np.divide(sums, counts, out=empty, where=counts > 0))

    def quantiles(
        self, place: npt.NDArray[np.int16], values: Values, counts: Values, shares: Sequence[float]
    ) -> FloatColumn:
        """Return of each bin the smallest value that at least a share of its samples do not exceed.

        float64 [shares, bins], NaN where a bin has none. ``values[i]``, in the bin ``place[i]``, occurred ``counts[i]``
        times; share 1 gives the maximum.
        """
        found = np.full((len(shares), len(self)), np.nan)
        order = np.argsort(place, kind="stable")
        bounds = np.searchsorted(place[order], np.arange(len(self) + 1))
        for each in np.flatnonzero(np.diff(bounds)).tolist():
            mine = order[bounds[each] : bounds[each + 1]]
            found[:, each] = _quantiles(values[mine], counts[mine], shares)
        return found


def _quantiles(values: Values, counts: Values, shares: Sequence[float]) -> FloatColumn:
    order = np.argsort(values)
    until = np.cumsum(counts[order])
    target = np.maximum(np.ceil(np.asarray(shares) * until[-1]), 1)
    return np.asarray(values[order[np.searchsorted(until, target, side="left")]], dtype=np.float64)
