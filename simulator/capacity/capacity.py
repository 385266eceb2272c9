"""The capacity of a deployment, over several draws of the requests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import exp, inf, log

from simulator.capacity.sample import Sample
from simulator.capacity.seed_capacity import SeedCapacity, SeedSearch, find_seed_capacity
from simulator.capacity.service import Budget
from simulator.capacity.slo import Slo
from simulator.interval import half_width
from simulator.trials.candidate import Candidate
from simulator.trials.plan import Plan, side_by_side
from traces.demand import Demand
from traces.errors import InputError

MOST_TRIALS = 15
SEEDS = 3
LEAST_FIRST, LEAST_OTHER = 5, 3
"""Trials that the search for the first seed, and for each other one, needs at least."""
USUAL_OTHER = 4


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """The highest rate that a deployment sustains within an SLO.

    Attributes
    ----------
    rate_per_s
        Requests/s: the geometric mean over the seeds; 0 where some seed has no rate at which the SLO holds. Where it
        holds with all requests at once (``unlimited``), what was served then: a lower bound.
    low_per_s, high_per_s
        The interval in which the mean over all seeds lies with 90 % (Student's t over the logs), widened
        by what the searches have left open; with one seed that alone. ``high_per_s`` is infinity where nothing failed.
    bound_by
        What fails beyond the capacity, for most seeds: a part of the SLO, or ``saturation``.
    stability
        Whether rates at which a queue grows for ever were left out.
    seeds
        What was found for each.
    """

    rate_per_s: float
    low_per_s: float
    high_per_s: float
    bound_by: str
    stability: bool
    seeds: tuple[SeedCapacity, ...]

    @property
    def trials(self) -> int:
        """Simulations that it took, of all seeds."""
        return sum(seed.trials for seed in self.seeds)

    @property
    def unmet(self) -> bool:
        """Whether the SLO is missed however few requests arrive."""
        return any(seed.unmet for seed in self.seeds)

    @property
    def unlimited(self) -> bool:
        """Whether the requests are too few to find a limit: the SLO holds with all of them at once."""
        return any(seed.unlimited for seed in self.seeds)

    @property
    def seen(self) -> bool:
        """Whether any rate was seen to hold; if not, the capacity is drawn from rates that failed."""
        return any(seed.seen for seed in self.seeds)

    @property
    def samples(self) -> list[Sample]:
        """All trials at a rate, of all seeds."""
        return [sample for seed in self.seeds for sample in seed.samples]

    @property
    def stable(self) -> bool | None:
        """Whether the deployment keeps up with the capacity for ever; None where the requests were too few to tell."""
        limit = self.service_limit_per_s
        return None if limit is None else self.rate_per_s <= limit * (1 + 1e-9)

    @property
    def service_limit_per_s(self) -> float | None:
        """The rate at which the deployment saturates, the mean over the seeds; None where it is not known."""
        limits = [seed.service.limit_per_s for seed in self.seeds]
        return _mean([limit for limit in limits if limit]) if all(limits) else None


def find_capacity(
    candidate: Candidate,
    demand: Demand,
    slo: Slo,
    *,
    seeds: int = SEEDS,
    seed: int = 0,
    tolerance: float = 0.025,
    most_trials: int = MOST_TRIALS,
    guess_per_s: float | None = None,
    stability: bool = True,
) -> Plan[Capacity]:
    """Return the plan that finds the highest rate at which a candidate meets an SLO.

    The search for the first seed begins with all requests at once, or at ``guess_per_s``; those for the others begin
    where it ended, side by side.

    Parameters
    ----------
    seeds, seed
        How many draws of the requests, and the first of them.
    tolerance
        How narrow the bracket of each seed is made, as a share of the rate, where the trials suffice.
    most_trials
        Of all seeds together.
    stability
        False: the latencies of the run alone decide, as the papers have it.

    Raises
    ------
    InputError
        If the trials are too few for the seeds, or (out of the plan) the candidate cannot serve the demand.
    """
    check_trials(seeds, most_trials)
    others = seeds - 1
    first_share = max(LEAST_FIRST, most_trials - USUAL_OTHER * others)
    search = SeedSearch(
        tolerance=tolerance, most_trials=first_share, guess_per_s=guess_per_s, stability=stability, look_beyond=True
    )
    first = yield from find_seed_capacity(candidate, demand, slo, search, seed=seed)
    found = [first]
    if others and not first.unmet and not first.unlimited:
        share, budget = replace(search, look_beyond=False), Budget(most_trials - first.trials)
        plans = {
            str(other): find_seed_capacity(candidate, demand, slo, share, seed=other, like=first, budget=budget)
            for other in range(seed + 1, seed + seeds)
        }
        results = yield from side_by_side(plans)
        found += results.values()
    return together(found, stability=stability)


def check_trials(seeds: int, most_trials: int) -> None:
    """Raise :class:`InputError` unless so many trials are enough for so many seeds."""
    if seeds < 1:
        raise InputError(f"{seeds} seeds", where="--seeds", expected="at least 1")
    least = LEAST_FIRST + LEAST_OTHER * (seeds - 1)
    if most_trials < least:
        raise InputError(f"{most_trials} trials for {seeds} seeds", where="--most-trials", expected=f"at least {least}")


def together(found: Sequence[SeedCapacity], *, stability: bool) -> Capacity:
    """Return the capacity over the seeds."""
    bound_by = Counter(each.bound_by for each in found).most_common(1)[0][0]
    if any(each.unmet for each in found):
        high = max(each.high_per_s for each in found)
        return Capacity(
            rate_per_s=0.0, low_per_s=0.0, high_per_s=high, bound_by=bound_by, stability=stability, seeds=tuple(found)
        )
    half = half_width([log(each.rate_per_s) for each in found])
    return Capacity(
        rate_per_s=_mean([each.rate_per_s for each in found]),
        low_per_s=_mean([each.low_per_s for each in found]) * exp(-half),
        high_per_s=_mean([each.high_per_s for each in found]) * exp(half),
        bound_by=bound_by,
        stability=stability,
        seeds=tuple(found),
    )


def _mean(rates: Sequence[float]) -> float:
    """Return the geometric mean."""
    if min(rates) == 0 or max(rates) == inf:
        return min(rates) if min(rates) == 0 else inf
    return exp(sum(log(rate) for rate in rates) / len(rates))
