"""Corrections of attention on a grid, read one value at a time and without numpy."""

from __future__ import annotations

from math import log2
from typing import TYPE_CHECKING, Any

import numpy as np

from profiler.tile import Floats

if TYPE_CHECKING:
    from profiler.deployment import Deployment

PER_OCTAVE = 3
OCTAVES = 18
ROWS = (*range(1, 8), *(step * 2**octave for octave in range(1, 16) for step in range(4, 8)))


class CorrectionGrid:
    """exp(residual) on a grid, [rows][thirds of a doubling of the context], read by bilinear interpolation."""

    def __init__(self, rows: list[int], factors: Floats) -> None:
        top = rows[-1]
        below = np.searchsorted(rows, np.arange(top + 1), side="right") - 1
        below = np.clip(below, 0, len(rows) - 2)
        low = np.asarray(rows, float)[below]
        high = np.asarray(rows, float)[np.minimum(below + 1, len(rows) - 1)]
        self._top = top
        self._below: list[int] = below.tolist()
        self._share: list[float] = np.clip((np.arange(top + 1) - low) / np.maximum(high - low, 1), 0, 1).tolist()
        self._factors: list[list[float]] = factors.tolist()
        self._last = factors.shape[1] - 2
        self.highest = float(factors.max())

    def at(self, row: int, context: float) -> float:
        """Return the factor for ``row`` and a context >= 1; beyond the grid its edge holds."""
        row = row if row < self._top else self._top
        position = PER_OCTAVE * log2(context)
        column = int(position)
        share = position - column
        if column > self._last:
            column, share = self._last, 1.0
        below = self._below[row]
        low = self._factors[below]
        high = self._factors[below + 1] if below + 1 < len(self._factors) else low
        first = low[column] + share * (low[column + 1] - low[column])
        second = high[column] + share * (high[column + 1] - high[column])
        return first + self._share[row] * (second - first)


def grid_contexts() -> Floats:
    """Return the contexts of a grid: thirds of doublings from 1 token."""
    return np.asarray(2.0 ** (np.arange(PER_OCTAVE * OCTAVES + 1) / PER_OCTAVE), dtype=np.float64)


def grid_rows(most: int) -> list[int]:
    """Return the rows of a grid up to ``most``: quarters of doublings."""
    return [row for row in ROWS if row < most] + [max(most, 2)]


class Heads:
    """A model's attention heads on one GPU, as the shape columns of an op."""

    def __init__(self, deployment: Deployment) -> None:
        self.heads, self.kv_heads = deployment.spec.heads_on(deployment.tensor_parallel_size)
        self.width = deployment.spec.head_dim
        self.element_bytes = deployment.spec.dtype_bytes

    def columns(self, rows: int) -> dict[str, Any]:
        """Return the columns that are the same in every row."""
        values = {"heads": self.heads, "kv_heads": self.kv_heads, "head_dim": self.width}
        values["element_bytes"] = self.element_bytes
        return {key: np.full(rows, float(value)) for key, value in values.items()}
