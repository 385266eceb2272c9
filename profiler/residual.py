"""What physics misses, as a correction to the logarithm of the time. Evaluated with numpy alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from profiler.tile import Floats

LARGEST_CORRECTION = 0.3
ROWS_AT_ONCE = 256
"""What trees and processes compute of more rows would not fit a cache."""


class Residual(Protocol):
    """Something that predicts log(measured / physics) from features."""

    def evaluate(self, features: Floats) -> Floats:
        """Return [rows] from [rows, features]."""

    def to_json(self) -> dict[str, Any]:
        """Return what :func:`residual_from_json` takes."""


@dataclass(frozen=True)
class Forest:
    """Boosted regression trees, each stored in pre-order (the left child follows its parent).

    Attributes
    ----------
    feature
        Of each node; -1 for a leaf.
    threshold
        Go left where the feature is <= this; in a leaf, its value.
    right
        Index of the right child; 0 in a leaf.
    roots
        Index of the first node of each tree.
    base
        What the trees are added to.
    """

    feature: npt.NDArray[np.int64]
    threshold: Floats
    right: npt.NDArray[np.int64]
    roots: npt.NDArray[np.int64]
    base: float

    def evaluate(self, features: Floats) -> Floats:
        """Return [rows] from [rows, features]; outside the training data the nearest leaf holds."""
        parts = [
            self._evaluate(features[first : first + ROWS_AT_ONCE])
            for first in range(0, max(len(features), 1), ROWS_AT_ONCE)
        ]
        return np.concatenate(parts)

    def _evaluate(self, features: Floats) -> Floats:
        rows = (np.arange(len(features)) * features.shape[1])[:, None]
        numbers, leaf = features.ravel(), self.feature < 0
        feature, here = np.where(leaf, 0, self.feature), np.arange(len(leaf))
        children = np.stack([np.where(leaf, here, here + 1), np.where(leaf, here, self.right)], axis=1).ravel()
        node = np.tile(self.roots, (len(features), 1))
        while not leaf[node].all():
            above = numbers.take(rows + feature.take(node)) > self.threshold.take(node)
            node = children.take(2 * node + above)
        return np.asarray(self.base + self.threshold[node].sum(axis=1), dtype=np.float64)

    def to_json(self) -> dict[str, Any]:
        """Return the trees as plain lists, thresholds to six significant digits."""
        return {
            "kind": "boosted trees",
            "base": round(self.base, 6),
            "roots": self.roots.tolist(),
            "feature": self.feature.tolist(),
            "threshold": [float(f"{value:.6g}") for value in self.threshold],
            "right": self.right.tolist(),
        }


@dataclass(frozen=True)
class GaussianProcess:
    """The mean of a Gaussian process with a Matern 3/2 kernel, one length scale a feature.

    Far from its points it returns to zero, so physics alone holds there.
    """

    points: Floats
    weights: Floats
    length_scales: Floats

    def evaluate(self, features: Floats) -> Floats:
        """Return [rows] from [rows, features]."""
        points = self.points / self.length_scales
        parts = [
            self._evaluate(features[first : first + ROWS_AT_ONCE] / self.length_scales, points)
            for first in range(0, max(len(features), 1), ROWS_AT_ONCE)
        ]
        return np.concatenate(parts)

    def _evaluate(self, scaled: Floats, points: Floats) -> Floats:
        squares = (scaled**2).sum(1)[:, None] + (points**2).sum(1)[None, :] - 2 * scaled @ points.T
        distance = np.sqrt(3.0 * np.maximum(squares, 0.0))
        return np.asarray((1 + distance) * np.exp(-distance) @ self.weights, dtype=np.float64)

    def to_json(self) -> dict[str, Any]:
        """Return points, weights and length scales as plain lists, to six significant digits."""
        return {
            "kind": "gaussian process, matern 3/2",
            "length_scales": [float(f"{value:.6g}") for value in self.length_scales],
            "points": [[float(f"{value:.6g}") for value in point] for point in self.points],
            "weights": [float(f"{value:.6g}") for value in self.weights],
        }


def residual_from_json(document: Mapping[str, Any]) -> Residual:
    """Return the residual that :meth:`Residual.to_json` described."""
    if document["kind"] == "boosted trees":
        integers = {key: np.asarray(document[key], dtype=np.int64) for key in ("feature", "right", "roots")}
        return Forest(**integers, threshold=np.asarray(document["threshold"], float), base=document["base"])
    arrays = {key: np.asarray(document[key], float) for key in ("points", "weights", "length_scales")}
    return GaussianProcess(**arrays)


@dataclass(frozen=True)
class Curves:
    """What the residual misses along one axis, for each profiled shape; linear between its points.

    Attributes
    ----------
    points
        For each profiled shape, by its group number: [2, points], the axis ascending and the log ratios.
    """

    points: Mapping[float, Floats]

    def evaluate(self, groups: Floats, axis: Floats) -> Floats:
        """Return what to add to the log of each row: zero where its shape was not profiled.

        Beyond the ends of a curve its last value holds.
        """
        result = np.zeros(len(groups))
        for group in np.unique(groups):
            curve = self.points.get(float(group))
            if curve is not None:
                rows = groups == group
                result[rows] = np.interp(axis[rows], curve[0], curve[1])
        return result

    def to_json(self) -> dict[str, Any]:
        """Return thousandths of the log ratio as integers; shapes on one axis share it."""
        by_axis: dict[tuple[float, ...], dict[str, list[int]]] = {}
        for group, (axis, ratio) in sorted(self.points.items()):
            thousandths = np.rint(ratio * 1000).astype(int).tolist()
            by_axis.setdefault(tuple(axis.tolist()), {})[f"{group:.0f}"] = thousandths
        return {
            "unit": "log ratio / 1000",
            "curves": [{"axis": list(a), "shapes": s} for a, s in by_axis.items()],
        }

    @staticmethod
    def from_json(document: Mapping[str, Any]) -> Curves:
        """Return the curves that :meth:`to_json` described."""
        points: dict[float, Floats] = {}
        for curve in document["curves"]:
            axis = np.asarray(curve["axis"], float)
            for group, thousandths in curve["shapes"].items():
                points[float(group)] = np.stack([axis, np.asarray(thousandths, float) / 1000])
        return Curves(points)
