"""Whether a rate can be kept up for ever, which the latencies of a short run do not tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan, log, nan

import numpy as np

from simulator.trials.outcome import Outcome

SATURATION = "saturation"
"""What bounds a capacity where it is no part of the SLO."""
ALL_AT_ONCE_PER_S = 1e6
"""A rate at which all requests are there before the first iteration ends."""
FLOOD = 2.0
"""Times the rate of service: arrivals at which a queue forms at once, and yet are in the order of a stream."""
LONGER, LEAST_LONGER, MOST_LONGER = 4, 1024, 2
"""How many times as many requests, and how many at least, are sent at once where the wait of fewer did not tell how
fast they are served; how often."""
WARM_UP = 0.3
"""Share of the windows that is left out: the system fills up first."""
SURE = 3.0
"""Standard errors by which a queue has to grow to be taken to grow."""
GROWTH = 0.01
"""Requests that stay behind, of one that arrives, below which nothing is said."""


@dataclass(frozen=True, kw_only=True)
class Drift:
    """How the requests in a system increase while others arrive.

    Attributes
    ----------
    growth
        Requests that stay behind for each one that arrives: 0 in a system that keeps up, 1 - 1/load in one that does
        not. NaN where there are too few windows.
    error
        Its standard error.
    """

    growth: float
    error: float

    @property
    def grows(self) -> bool:
        """Whether the queue grows beyond doubt."""
        return self.growth > GROWTH and self.growth > SURE * self.error


def drift(outcome: Outcome) -> Drift:
    """Return the drift of the requests present over the windows of a run."""
    levels = outcome.present[int(WARM_UP * len(outcome.present)) :]
    if len(levels) < 5:
        return Drift(growth=nan, error=nan)
    slope, error = trend(levels)
    arrivals = outcome.requests / len(outcome.present)
    return Drift(growth=slope / arrivals, error=error / arrivals)


def trend(levels: Sequence[float]) -> tuple[float, float]:
    """Return the slope of a line through values at steps of 1, and its standard error where neighbours are alike.

    Residuals are taken as an autoregressive series of order 1, whose coefficient is found with the bias correction of
    Kendall (1954); the error of independent ones is widened by sqrt((1 + c) / (1 - c)).
    """
    values = np.asarray(levels, dtype=float)
    steps = np.arange(len(values)) - (len(values) - 1) / 2
    slope = float(steps @ values / (steps @ steps))
    left = values - values.mean() - slope * steps
    spread = float(left @ left)
    if spread <= 1e-12:
        return slope, 0.0
    found = float(left[1:] @ left[:-1]) / spread
    alike = min(0.9, max(0.0, found + (1 + 3 * found) / len(values)))
    plain = np.sqrt(spread / (len(values) - 2) / float(steps @ steps))
    return slope, float(plain * np.sqrt((1 + alike) / (1 - alike)))


def service_limit_per_s(all_at_once: Outcome) -> float | None:
    """Return the rate beyond which a queue grows for ever: what is served when all arrive at once, at rate
    :data:`ALL_AT_ONCE_PER_S`; None where the requests were too few to tell."""
    rate = all_at_once.service_per_s
    return None if isnan(rate) else rate


def saturated_by(rate_per_s: float, limit_per_s: float | None, outcome: Outcome) -> float:
    """Return by how much a rate is too high for ever: the log of it over the limit, above 0 where it is.

    Where the limit is not known the drift of the run tells, if anything does: how many of the requests stay behind.
    """
    if limit_per_s is not None:
        return log(rate_per_s / limit_per_s)
    drifting = drift(outcome)
    return drifting.growth if drifting.grows else 0.0
