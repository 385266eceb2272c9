"""By how much the winner is better than another, and whether that is beyond doubt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, inf, isfinite, log, nan, sqrt
from typing import Any

from simulator.interval import COVERAGE, half_width, of_draws
from traces.metrics import without_nan


@dataclass(frozen=True, kw_only=True)
class Lead:
    """What the winner is worth over what another one is, as a ratio, with an interval of :data:`COVERAGE`.

    Both served the same requests, and in each draw the cost model was wrong in the same way, so that what they have in
    common cancels.

    Attributes
    ----------
    over
        The other one's label.
    of
        What is compared, such as "capacity" or "goodput-per-gpu": the more, the better.
    """

    over: str
    of: str
    ratio: float
    low: float
    high: float

    @property
    def sure(self) -> bool:
        """Whether the interval leaves 1 out."""
        return self.low > 1 or self.high < 1

    @property
    def verdict(self) -> str:
        """Say it in words."""
        if self.ratio == self.low == self.high == 1:
            return f"no simulation tells it from {self.over}"
        value, low, high = (f"{100 * (each - 1):+.1f}" for each in (self.ratio, self.low, self.high))
        told = "sure" if self.sure else "too close to call"
        return f"{self.of} {value} % ({low} to {high} %) against {self.over}: {told} at {100 * COVERAGE:g} %"

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, and whether it is sure."""
        ratio = without_nan({"value": self.ratio, "low": self.low, "high": self.high})
        return {"over": self.over, "of": self.of, "ratio": ratio, "sure": self.sure, "verdict": self.verdict}


def lead(
    over: str,
    of: str,
    factor: float,
    seeds: tuple[Sequence[float], Sequence[float]],
    draws: tuple[Sequence[float], Sequence[float]],
) -> Lead:
    """Return the winner's lead over another candidate.

    Parameters
    ----------
    factor
        By what to multiply the ratio of capacities: of what they cost, or of their GPUs.
    seeds
        The capacities of both, draw of the requests by draw of the requests: paired, Student's interval of the mean of
        the logs of their ratios.
    draws
        The same for draws of the cost model, the first as it was fitted: how far the ratio moves, by ranks. A draw in
        which one of the two serves nothing leaves that side of the interval open.
    """
    logs = [each for each in _logs(*seeds) if isfinite(each)]
    fitted, *others = _logs(*draws)
    if not logs:
        return Lead(over=over, of=of, ratio=inf, low=0.0, high=inf)
    mean, half = sum(logs) / len(logs) + log(factor), half_width(logs)
    moved = of_draws(0.0, [each - fitted for each in others if isfinite(each)])
    known = isfinite(fitted)
    low = mean - sqrt(half**2 + moved.low**2) if known and -inf not in others else -inf
    high = mean + sqrt(half**2 + moved.high**2) if known and inf not in others else inf
    return Lead(over=over, of=of, ratio=exp(mean), low=exp(low), high=exp(high))


def _logs(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Return the logs of ratios: infinity where the other one serves nothing, minus infinity where ours does not; NaN
    where none does."""
    return [
        log(one / other) if one > 0 and other > 0 else inf if one > other else -inf if other > one else nan
        for one, other in zip(ours, theirs, strict=False)
    ]
