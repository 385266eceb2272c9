"""How much longer iterations take than predicted: first as the cost model says of itself, then as they did."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque

from policies.costs import BatchLike, Costs

COVERAGE = 0.99
"""Share of iterations that shall take no longer than predicted: targets are set for the 99th percentile."""
FEWEST, MOST = 32, 256
"""Iterations seen before they count instead of the cost model's band, and the latest ones that count."""


class Pace:
    """The factor on predicted times that a share :data:`COVERAGE` of iterations stay under.

    A cost model errs in two ways: by a factor that is the same for all its iterations, since the machine is not quite
    the one that was measured, and by one for each. Its band holds both, and so is wider than what is left to fear once
    the first few iterations have shown the first. Where nothing errs, as in a simulation, the factor becomes 1.
    """

    def __init__(self, costs: Costs) -> None:
        self._costs = costs
        self._prior: float | None = None
        self._recent: deque[float] = deque()
        self._sorted: list[float] = []

    def factor(self, batch: BatchLike, stage: int) -> float:
        """Return the factor; ``batch`` is one of those whose time is asked for."""
        seen = len(self._sorted)
        if seen >= FEWEST:
            return self._sorted[min(seen - 1, int(COVERAGE * seen))]
        if self._prior is None:
            expected_s = self._costs.iteration_time(batch, stage)
            self._prior = self._costs.interval(batch, COVERAGE, stage)[1] / expected_s if expected_s > 0 else 1.0
        return self._prior

    def note(self, ratio: float) -> None:
        """Take note of an iteration that took ``ratio`` times as long as predicted."""
        self._recent.append(ratio)
        insort(self._sorted, ratio)
        if len(self._recent) > MOST:
            del self._sorted[bisect_left(self._sorted, self._recent.popleft())]
