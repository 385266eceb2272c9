"""What others do: a random forest an op on the raw numbers of a shape, as Vidur (arXiv 2405.05465, section 4.3)."""

from __future__ import annotations

from typing import Any

import numpy as np

from profiler.op import Op, Shape
from profiler.tile import Floats


class VidurForest:
    """scikit-learn's random forest, from the shape columns to seconds."""

    def __init__(self, op: Op, shape: Shape, time_s: Floats, *, trees: int, seed: int) -> None:
        from sklearn.ensemble import RandomForestRegressor

        self._op = op
        self._kinds = np.unique(shape["kind"]) if "kind" in op.keys else np.zeros(0)
        self._forest: Any = RandomForestRegressor(trees, random_state=seed)
        self._forest.fit(self._numbers(shape), time_s)

    def predict(self, shape: Shape) -> Floats:
        """Return seconds, [rows]."""
        return np.asarray(self._forest.predict(self._numbers(shape)), dtype=np.float64)

    def _numbers(self, shape: Shape) -> Floats:
        columns = [np.searchsorted(self._kinds, shape[key]) if key == "kind" else shape[key] for key in self._op.keys]
        return np.stack(columns, axis=1).astype(np.float64)
