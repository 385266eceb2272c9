"""The capacities of one deployment within several SLOs, from the same runs."""

from __future__ import annotations

from collections.abc import Sequence

from simulator.capacity.capacity import MOST_TRIALS, Capacity, together
from simulator.capacity.seed_capacity import Known, SeedSearch, find_seed_capacity
from simulator.capacity.service import Service
from simulator.capacity.slo import Slo
from simulator.trials.candidate import Candidate
from simulator.trials.plan import Plan
from traces.demand import Demand


def find_capacities(
    candidate: Candidate,
    demand: Demand,
    slos: Sequence[Slo],
    *,
    guess_per_s: float,
    seed: int = 0,
    tolerance: float = 0.025,
    most_trials: int = MOST_TRIALS,
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

    Raises
    ------
    InputError
        If the candidate cannot serve the demand (out of the plan).
    """
    if any(slo.goodput is not None for slo in slos):
        raise ValueError("an SLO with a goodput rule")
    service = Service(
        served_per_s=guess_per_s, limit_per_s=None, stability=False, demand=demand, at_once=None, trials=0
    )
    search = SeedSearch(tolerance=tolerance, most_trials=most_trials, guess_per_s=guess_per_s, stability=False)
    known, found = list[Known](), list[Capacity]()
    for slo in slos:
        one = yield from find_seed_capacity(candidate, demand, slo, search, seed=seed, service=service, known=known)
        known = [(sample.rate_per_s, sample.outcome) for sample in one.samples]
        found.append(together([one], stability=False))
    return found
