"""How sure a prediction is: split-conformal bands around it, each for a span of predicted times."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import Any

import numpy as np
import numpy.typing as npt

from profiler.tile import Floats

COVERAGES = (0.5, 0.8, 0.9, 0.95, 0.99)
MOST_BINS = 8
FEWEST_IN_BIN = 25
FEWEST_COUNTED = 60
"""Rows of which a rank is taken: smaller bins count their neighbours' rows. Of fewer than 99 rows the band of 99 %
is all that was ever missed."""
HALF_MIDDLE = 0.6745
"""Half the range of the middle half of a normal distribution, in standard deviations."""
SCATTER = np.asarray([-1.645, -1.036, -0.674, -0.385, -0.126, 0.126, 0.385, 0.674, 1.036, 1.645])
"""Middles of the tenths of a normal distribution, in standard deviations."""
EDGES = "edges_s"


@dataclass(frozen=True)
class Bands:
    """Half widths in log time, by coverage and by predicted time.

    Attributes
    ----------
    edges_s
        Predicted seconds where one bin ends and the next begins, ascending; [bins - 1].
    widths
        For each of some coverages, ascending, the half width of each bin, [bins].
    """

    edges_s: tuple[float, ...] = ()
    widths: Mapping[float, tuple[float, ...]] = field(default_factory=dict)

    @staticmethod
    def of(measured: Floats, predicted: Floats, spread: Floats | None = None) -> Bands:
        """Return the bands that rows which the fit did not see ask for (split-conformal; Lei et al. 2018).

        In each bin of n rows it is the miss of rank ceil((n + 1) coverage) that another row like these exceeds
        at most as often as promised. Rows of another software build are not like these.

        Parameters
        ----------
        spread
            Where ``measured`` are medians and single times are to be held: half the range of the middle half of
            each row's times, NaN where unknown. They are taken to scatter normally in log time.
        """
        order = np.argsort(predicted, kind="stable")
        miss = _misses(measured, predicted, spread)[order]
        bins = int(np.clip(len(miss) // FEWEST_IN_BIN, 1, MOST_BINS))
        inside = np.array_split(np.arange(len(miss)), bins)
        parts = [np.sort(miss[_window(part, len(miss))].ravel()) for part in inside]
        ends = np.cumsum([len(part) for part in inside])[:-1]
        edges = np.sqrt(predicted[order][ends - 1] * predicted[order][ends])
        widths = {share: tuple(_rounded(_rank(part, share)) for part in parts) for share in COVERAGES}
        return Bands(tuple(_rounded(edge) for edge in edges), widths)

    def width(self, coverage: float, predicted_s: float) -> float:
        """Return the half width, in log time, of a band around ``predicted_s``; between coverages interpolated."""
        here = bisect_right(self.edges_s, predicted_s)
        return float(np.interp(coverage, list(self.widths), [each[here] for each in self.widths.values()]))

    def to_json(self) -> dict[str, Any]:
        """Return what :meth:`from_json` takes."""
        widths = {str(share): list(each) for share, each in self.widths.items()}
        return {EDGES: list(self.edges_s), **widths}

    @staticmethod
    def from_json(document: Mapping[str, Any]) -> Bands:
        """Return the bands that :meth:`to_json` described; a single number is the width of all predicted times."""
        found = {float(share): each for share, each in document.items() if share != EDGES}
        widths = {share: tuple(each) if isinstance(each, list) else (each,) for share, each in sorted(found.items())}
        return Bands(tuple(document.get(EDGES, ())), widths)


def _misses(measured: Floats, predicted: Floats, spread: Floats | None) -> Floats:
    """Return the size of each miss in log time, [rows, single times of each]."""
    miss = np.log(measured / predicted)[:, None]
    if spread is not None:
        miss = miss + np.nan_to_num(spread / measured)[:, None] / HALF_MIDDLE * SCATTER
    return np.asarray(np.abs(miss), dtype=np.float64)


def _window(rows: npt.NDArray[np.int64], count: int) -> slice:
    """Return the rows of a bin, and as many beside it as make up :data:`FEWEST_COUNTED`, of ``count`` in all."""
    more = max(0, FEWEST_COUNTED - len(rows)) // 2
    first = int(np.clip(rows[0] - more, 0, max(0, count - FEWEST_COUNTED)))
    return slice(first, max(rows[-1] + 1 + more, min(first + FEWEST_COUNTED, count)))


def _rank(ascending: Floats, coverage: float) -> float:
    return float(ascending[min(ceil((len(ascending) + 1) * coverage), len(ascending)) - 1])


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
