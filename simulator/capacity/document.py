"""Capacities as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simulator.capacity.capacity import Capacity
from simulator.capacity.sample import Sample
from simulator.capacity.saturation import drift
from simulator.capacity.seed_capacity import SeedCapacity
from simulator.capacity.slo import Slo
from simulator.capacity.verdict import verdict
from simulator.interval import COVERAGE
from traces.demand import Demand
from traces.metrics import without_nan


def document(capacities: Mapping[str, Capacity], slo: Slo, demand: Demand, command: str) -> dict[str, Any]:
    """Return the content of ``capacity.json``: null where a rate is without limit or a value is not known."""
    return {
        "slo": str(slo),
        "demand": demand.as_dict(),
        "command": command,
        "policies": {
            label: {"verdict": verdict(label, capacity), **as_dict(capacity)} for label, capacity in capacities.items()
        },
    }


def as_dict(capacity: Capacity) -> dict[str, Any]:
    """Return a capacity with all its trials, as JSON values."""
    found: dict[str, Any] = without_nan(
        {
            "rate_per_s": capacity.rate_per_s,
            "low_per_s": capacity.low_per_s,
            "high_per_s": capacity.high_per_s,
            "coverage": COVERAGE if len(capacity.seeds) > 1 else None,
            "bound_by": capacity.bound_by,
            "unmet": capacity.unmet,
            "unlimited": capacity.unlimited,
            "seen": capacity.seen,
            "stability": capacity.stability,
            "stable": capacity.stable,
            "service_limit_per_s": capacity.service_limit_per_s,
            "trials": capacity.trials,
            "seeds": [_seed(each) for each in capacity.seeds],
        }
    )
    return found


def _seed(found: SeedCapacity) -> dict[str, Any]:
    return {
        "seed": found.seed,
        "rate_per_s": found.rate_per_s,
        "low_per_s": found.low_per_s,
        "high_per_s": found.high_per_s,
        "bound_by": found.bound_by,
        "service_limit_per_s": found.service.limit_per_s,
        "trials": found.trials,
        "rates": [_sample(each) for each in found.samples],
    }


def _sample(sample: Sample) -> dict[str, Any]:
    drifting = drift(sample.outcome)
    return {
        "rate_per_s": sample.rate_per_s,
        "holds": sample.holds,
        "margin": sample.margin,
        "bound_by": sample.bound_by,
        "queue_growth": drifting.growth,
        "queue_growth_error": drifting.error,
        "outcome": sample.outcome.as_dict(),
    }
