"""One capacity over another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log

from simulator.capacity.capacity import Capacity
from simulator.interval import half_width


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """How many times one capacity is of another, with its interval (see :class:`Capacity`)."""

    value: float
    low: float
    high: float

    @property
    def certain(self) -> bool:
        """Whether one is higher beyond the interval."""
        return self.low > 1 or self.high < 1


def ratio(one: Capacity, other: Capacity) -> Ratio | None:
    """Return the ratio of two capacities, seed by seed, for the requests are the same; None where there is none."""
    if one.unmet or other.unmet or one.unlimited or other.unlimited or len(one.seeds) != len(other.seeds):
        return None
    pairs = list(zip(one.seeds, other.seeds, strict=True))
    half = half_width([log(a.rate_per_s / b.rate_per_s) for a, b in pairs])
    return Ratio(
        value=exp(_mean([log(a.rate_per_s / b.rate_per_s) for a, b in pairs])),
        low=exp(_mean([_log(a.low_per_s / b.high_per_s) for a, b in pairs]) - half),
        high=exp(_mean([-_log(b.low_per_s / a.high_per_s) for a, b in pairs]) + half),
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _log(value: float) -> float:
    return log(value) if value > 0 else float("-inf")
