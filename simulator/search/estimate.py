"""What a rung of the search finds out of a candidate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isnan
from typing import Any

from simulator.capacity.capacity import Capacity, find_capacity
from simulator.capacity.slo import Slo
from simulator.search.rung import Rung
from simulator.trials.candidate import Candidate
from simulator.trials.plan import Plan
from traces.demand import Demand
from traces.errors import InputError
from traces.metrics import without_nan

SHOWN = (
    "TTFT P50",
    "TTFT P99",
    "TBT P99",
    "TPOT P50",
    "End-to-end P50",
    "Scheduling delay P50",
    "Tokens an iteration",
    "Decodes an iteration",
    "KV use, max",
    "Preemptions",
    "MFU while busy",
    "Goodput",
)
"""Metrics that are kept of the highest rate that held."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """The capacity of a candidate, as well as a rung knows it.

    Attributes
    ----------
    rate_per_s, low_per_s, high_per_s, bound_by
        As :class:`simulator.capacity.capacity.Capacity` has them.
    seeds_per_s
        The capacity for each draw of the requests.
    nearest
        What was nearest to the SLO, and its value, where no rate was seen to meet it.
    held_per_s, metrics
        The highest rate that was seen to hold, and what came out there (:data:`SHOWN`); 0 and empty where none was.
    trials
        Simulations that it took.
    requests
        Of each simulation.
    """

    rate_per_s: float
    low_per_s: float
    high_per_s: float
    bound_by: str
    seeds_per_s: tuple[float, ...]
    nearest: str
    held_per_s: float
    metrics: Mapping[str, float]
    trials: int
    requests: int

    @property
    def seen(self) -> bool:
        """Whether the SLO was seen to hold at all; if not, the capacity is drawn from rates at which it did not."""
        return bool(self.metrics)

    @property
    def good(self) -> float:
        """The share of requests within targets of their own at the highest rate that held; 1 where there are none."""
        share = self.metrics.get("Goodput", 1.0)
        return 1.0 if isnan(share) else share

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values: null for what is not known."""
        document: dict[str, Any] = without_nan(
            {
                "capacity": {"value": self.rate_per_s, "low": self.low_per_s, "high": self.high_per_s},
                "bound_by": self.bound_by,
                "seeds": list(self.seeds_per_s),
                "held_at": self.held_per_s,
                "metrics": self.metrics,
                "trials": self.trials,
                "requests": self.requests,
            }
        )
        return document


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Why a candidate has no capacity at all: it cannot serve the demand, or its simulations failed."""

    reason: str


def estimate(
    candidate: Candidate, demand: Demand, slo: Slo, rung: Rung, guess_per_s: float | None
) -> Plan[Estimate | Refusal]:
    """Return the plan that finds the capacity of a candidate as a rung asks for it."""
    try:
        found = yield from find_capacity(
            candidate,
            demand.first(rung.requests),
            slo,
            seed=rung.seed,
            seeds=rung.seeds,
            tolerance=rung.tolerance,
            most_trials=rung.most_trials,
            guess_per_s=guess_per_s,
        )
    except InputError as error:
        return Refusal(reason=str(error))
    return _summed_up(found, rung)


def _summed_up(found: Capacity, rung: Rung) -> Estimate:
    held = [sample for sample in found.samples if sample.holds and sample.rate_per_s <= found.seeds[0].low_per_s]
    best = max(held, key=lambda sample: sample.rate_per_s, default=None)
    outcome = best.outcome if best else found.seeds[0].service.at_once if found.unlimited else None
    lowest = min(found.samples, key=lambda sample: sample.rate_per_s, default=None)
    return Estimate(
        rate_per_s=found.rate_per_s,
        low_per_s=found.low_per_s,
        high_per_s=found.high_per_s,
        bound_by=found.bound_by,
        seeds_per_s=tuple(seed.rate_per_s for seed in found.seeds),
        nearest=lowest.worst if lowest and not found.seen else "",
        held_per_s=best.rate_per_s if best else 0.0,
        metrics={} if outcome is None else {name: outcome.metrics[name] for name in SHOWN},
        trials=found.trials,
        requests=rung.requests,
    )
