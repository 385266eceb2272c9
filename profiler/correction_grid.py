"""Corrections of attention on a grid, read one value at a time and without numpy."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, Any

import numpy as np

from profiler.lazy_table import LazyTable
from profiler.tile import Floats

if TYPE_CHECKING:
    from profiler.deployment import Deployment

PER_OCTAVE = 3
OCTAVES = 18
ROWS = (*range(1, 8), *(step * 2**octave for octave in range(1, 16) for step in range(4, 8)))
EDGES = PER_OCTAVE * 16
"""Columns that repeat the last one: longer contexts, up to 2^34 tokens, need no case of their own."""
Cell = tuple[float, float, float, float]
"""A factor at position 0 and what it gains a column, both on the row above the cell; and how much more on the next."""


class CorrectionGrid:
    """Factors on a grid, [rows][thirds of a doubling of the context], read by bilinear interpolation.

    A position is that of a context among the columns, ``PER_OCTAVE * log2(context)`` for a context >= 1.
    Beyond the grid its edge holds.
    """

    def __init__(self, rows: list[int], factors: Floats) -> None:
        self._known = rows
        rises = np.diff(factors, axis=1, append=factors[:, -1:])
        bases = factors - np.arange(factors.shape[1]) * rises
        cells = np.stack([bases[:-1], rises[:-1], np.diff(bases, axis=0), np.diff(rises, axis=0)], axis=-1)
        self._cells: list[list[Cell]] = [list(map(tuple, row)) for row in cells.tolist()]
        for row in self._cells:
            row += EDGES * row[-1:]
        self._highest: list[float] = np.maximum(factors[:-1], factors[1:]).max(axis=1).tolist()
        self._rows = LazyTable(self.around)

    def _above(self, row: int) -> int:
        return min(max(bisect_right(self._known, row) - 1, 0), len(self._known) - 2)

    def around(self, row: int) -> tuple[list[Cell], float]:
        """Return the cells that ``row`` runs through, by ``int(position)``, and which share of their height it has."""
        above = self._above(row)
        low, high = self._known[above : above + 2]
        return self._cells[above], min(max((row - low) / (high - low), 0.0), 1.0)

    def at(self, row: int, position: float) -> float:
        """Return the factor for ``row`` at a position."""
        cells, part = self._rows[row]
        base, rise, more, steeper = cells[int(position)]
        return base + rise * position + part * (more + steeper * position)

    def line(self, row: int) -> list[tuple[float, float]]:
        """Return the factors along ``row`` by ``int(position)``: one at position 0, and what it gains a column."""
        cells, part = self.around(row)
        return [(base + part * more, rise + part * steeper) for base, rise, more, steeper in cells]

    def highest(self, row: int) -> float:
        """Return a factor that none along ``row`` exceeds."""
        return self._highest[self._above(row)]


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
