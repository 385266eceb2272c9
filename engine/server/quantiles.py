"""Percentiles of what is too much to keep."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from math import ceil, exp, log

STEP = log(1.02)
"""Values are told apart to 2 %."""
LEAST = 1e-6


class Quantiles:
    """How often values occurred, to within 2 % of each: a few hundred counts, however many there are."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()

    def __len__(self) -> int:
        return self._counts.total()

    def __bool__(self) -> bool:
        return bool(self._counts)

    def add(self, value: float, count: int = 1) -> None:
        """Take a value that occurred ``count`` times."""
        self._counts[round(log(max(value, LEAST)) / STEP)] += count

    @staticmethod
    def of(parts: Iterable[Quantiles]) -> Quantiles:
        """Return all values of several."""
        whole = Quantiles()
        for part in parts:
            whole._counts.update(part._counts)
        return whole

    def percentile(self, percent: float) -> float | None:
        """Return the value that so many percent do not exceed; None where there is none."""
        place = max(1, ceil(percent / 100 * len(self)))
        for step in sorted(self._counts):
            place -= self._counts[step]
            if place <= 0:
                return exp(step * STEP)
        return None
