"""The capacities of one deployment within several SLOs, from the same runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import zip_longest
from math import isnan, log

from simulator.capacity.bracket import MOST_SLOPE, NEAR, log_tolerance
from simulator.capacity.capacity import MOST_TRIALS, Capacity, together
from simulator.capacity.seed_capacity import SeedCapacity, SeedSearch, find_seed_capacity
from simulator.capacity.service import Service
from simulator.capacity.slo import SPOKEN, Slo
from simulator.trials.candidate import Candidate
from simulator.trials.outcome import Outcome
from simulator.trials.plan import Plan
from traces.demand import Demand

COARSER = 4
"""Times as wide as the brackets wanted are those of a pilot."""
WAIT = "Scheduling delay"


def find_capacities(
    candidate: Candidate,
    demand: Demand,
    slos: Sequence[Slo],
    *,
    guess_per_s: float,
    seed: int = 0,
    tolerance: float = 0.025,
    most_trials: int = MOST_TRIALS,
    pilot_requests: int = 0,
) -> Plan[list[Capacity]]:
    """Return the plan that finds the highest rate at which a candidate meets each of several SLOs.

    Latencies of the runs alone decide, as the papers have it, over one draw of the requests. What a run at a rate says
    of one SLO it says of all: each search goes on from the runs of those before it. None runs all requests at once.

    Parameters
    ----------
    slos
        None with a goodput rule: its share is counted within a run.
    guess_per_s
        Where to begin; capacities are looked for from a thousandth of it to a thousand times as much.
    tolerance, most_trials
        As of :func:`simulator.capacity.capacity.find_capacity`, for each SLO.
    pilot_requests
        Look first, by that many of the requests and roughly, where the capacities are; 0: not so.

    Raises
    ------
    InputError
        If the candidate cannot serve the demand (out of the plan).
    """
    if any(slo.goodput is not None for slo in slos):
        raise ValueError("an SLO with a goodput rule")
    rough: list[Capacity] = []
    if pilot_requests:
        few, wide = demand.first(pilot_requests), COARSER * tolerance
        rough = yield from find_capacities(candidate, few, slos, guess_per_s=guess_per_s, seed=seed, tolerance=wide)
    service = Service(
        served_per_s=guess_per_s, limit_per_s=None, stability=False, demand=demand, at_once=None, trials=0
    )
    search = SeedSearch(tolerance=tolerance, most_trials=most_trials, guess_per_s=guess_per_s, stability=False)
    known, found = dict[float, Outcome](), list[Capacity]()
    for slo, pilot in zip_longest(slos, rough):
        like = None if pilot is None or pilot.unmet else _start(pilot.seeds[0])
        near = [(rate, each) for rate, each in known.items() if like is None or _near(rate, like, tolerance)]
        one = yield from find_seed_capacity(
            candidate, demand, slo, search, seed=seed, like=like, start=service, known=near
        )
        known |= {sample.rate_per_s: sample.outcome for sample in one.samples}
        found.append(together([one], stability=False))
    return found


def _start(pilot: SeedCapacity) -> SeedCapacity:
    """Return what a pilot says of a longer run: where requests wait too long, that is about as fast as it served them,
    for it was over before its queue had grown; and there the delay explodes."""
    above = pilot.above
    if above is None or not above.bound_by.endswith(SPOKEN[WAIT]) or isnan(above.outcome.service_per_s):
        return pilot
    return replace(pilot, rate_per_s=above.outcome.service_per_s, slope=MOST_SLOPE)


def _near(rate_per_s: float, like: SeedCapacity, tolerance: float) -> bool:
    """Whether a run says more of where a search begins than the pilot does."""
    return abs(log(rate_per_s / like.rate_per_s)) <= NEAR * log_tolerance(tolerance)
