"""What a residual misses for the head layouts that were profiled, over all sizes of their launches."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from profiler.tile import Floats

FEWEST_POINTS = 24
NEIGHBOURS = 4
NEIGHBOURS_FROM = 4
SAME_PLACE = 1e-6
MOST_LAYOUTS = 8
"""Where a table has more layouts, what it teaches the residual is better than lines between the few points of each."""


@dataclass(frozen=True)
class Surfaces:
    """The log ratio over a plane, for each profiled layout; linear between its points, of which in four dimensions
    the nearest count, by the inverse square of their distance.

    Attributes
    ----------
    points
        For each layout, by its group number: [points, dimensions + 1], where a point lies (see
        :attr:`profiler.op.Op.plane`), and the log ratio there.
    """

    points: Mapping[float, Floats]
    _known: dict[float, _Surface] = field(default_factory=dict, init=False, repr=False, compare=False)

    def evaluate(self, groups: Floats, where: Floats) -> Floats:
        """Return what to add to the log of each row: zero where its layout was not profiled.

        Parameters
        ----------
        groups
            [rows].
        where
            [rows, dimensions]. Beyond the points of a layout its edge holds.
        """
        result = np.zeros(len(groups))
        for group in map(float, np.unique(groups)):
            if group in self.points:
                if group not in self._known:
                    self._known[group] = _Surface(self.points[group])
                rows = groups == group
                result[rows] = self._known[group].at(where[rows])
        return result

    def to_json(self) -> dict[str, Any]:
        """Return places in hundredths of a doubling and thousandths of the log ratio, as integers."""
        layouts = {}
        for group, points in sorted(self.points.items()):
            scaled = np.rint(points * np.asarray([100.0] * (points.shape[1] - 1) + [1000.0]))
            layouts[f"{group:.0f}"] = scaled.astype(int).ravel().tolist()
        dimensions = {points.shape[1] - 1 for points in self.points.values()}
        return {"unit": "doublings / 100, log ratio / 1000", "dimensions": max(dimensions), "layouts": layouts}

    @staticmethod
    def from_json(document: Mapping[str, Any]) -> Surfaces:
        """Return the surfaces that :meth:`to_json` described."""
        width = document["dimensions"] + 1
        scale = np.asarray([100.0] * (width - 1) + [1000.0])
        layouts = document["layouts"].items()
        return Surfaces({float(key): np.asarray(values, float).reshape(-1, width) / scale for key, values in layouts})


class _Surface:
    """Linear within the triangles (or tetrahedra) of the points; where there are none, the nearest count."""

    def __init__(self, points: Floats) -> None:
        from scipy.interpolate import LinearNDInterpolator
        from scipy.spatial import KDTree, QhullError

        where, self._ratio = points[:, :-1], points[:, -1]
        self._low, self._high = where.min(axis=0), where.max(axis=0)
        self._used = self._high > self._low
        where, self._linear = where[:, self._used], None
        self._tree = KDTree(where)
        if 1 < where.shape[1] < NEIGHBOURS_FROM:
            with suppress(QhullError):  # all on a line
                self._linear = LinearNDInterpolator(where, self._ratio)

    def at(self, where: Floats) -> Floats:
        inside = np.clip(where, self._low, self._high)[:, self._used]
        if self._linear is None:
            return self._nearest(inside)
        linear = np.asarray(self._linear(inside), dtype=np.float64)
        beyond = np.isnan(linear)
        linear[beyond] = self._nearest(inside[beyond]) if beyond.any() else 0.0
        return linear

    def _nearest(self, where: Floats) -> Floats:
        distance, index = self._tree.query(where, k=min(NEIGHBOURS, len(self._ratio)))
        weight = 1 / np.maximum(distance, SAME_PLACE) ** 2
        return np.asarray((weight * self._ratio[index]).sum(axis=-1) / weight.sum(axis=-1), dtype=np.float64)


def fit_surfaces(groups: Floats, where: Floats, log_ratio: Floats) -> Surfaces | None:
    """Return a surface for each layout of enough points; None where there is none, or layouts are many.

    Parameters
    ----------
    groups, log_ratio
        [rows].
    where
        [rows, dimensions].
    """
    names, counts = np.unique(groups, return_counts=True)
    if len(names) > MOST_LAYOUTS:
        return None
    kept = names[counts >= FEWEST_POINTS]
    points = {float(name): np.column_stack([where, log_ratio])[groups == name] for name in kept}
    points = {name: rows for name, rows in points.items() if np.ptp(rows[:, :-1], axis=0).any()}
    return Surfaces(points) if points else None
