"""What ``compare --significance`` does beside the comparison: pairs of runs in processes, and their verdicts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from policies.catalog import PolicyChoice
from simulator.significance.significance import Significance, find_significance
from simulator.trials.plan import carry_out
from simulator.trials.trial import Trial
from simulator.trials.watched import watched_processes
from simulator.verdicts import winner
from traces.demand import Demand
from traces.goodput import GoodputRule
from traces.metrics import Metrics
from traces.presets import preset_names
from traces.source import open_workload

if TYPE_CHECKING:
    from simulator.session import Request


def judge(
    request: Request,
    choices: Mapping[str, PolicyChoice],
    metrics: Mapping[str, Metrics],
    goodput: GoodputRule | None,
) -> Significance:
    """Return the verdicts on the policies of a comparison, against the one asked for, else the one that won it.

    The pairs have other seeds than the comparison, so that chance in it does not speak for the winner twice.

    Raises
    ------
    InputError
        If requests of another seed cannot be served.
    """
    trials = trials_of(request, choices, goodput)
    seeds = request.numbers(request.seed)
    plan = find_significance(trials, request.baseline or winner(metrics), seeds, least_difference=request.least_share)
    candidates = {label: trial.candidate for label, trial in trials.items()}
    with watched_processes(candidates, 2 * len(seeds), "runs for significance") as run:
        return carry_out(plan, run)


def trials_of(request: Request, choices: Mapping[str, PolicyChoice], goodput: GoodputRule | None) -> dict[str, Trial]:
    """Return the run of each policy that a comparison asks for, with requests that can be drawn anew."""
    demand, rate_per_s = demand_of(request)
    beside = tuple(choices.values())
    return {
        label: Trial(
            candidate=request.candidate(choice, demand.longest, beside=beside, strict=request.strict),
            demand=demand,
            rate_per_s=rate_per_s,
            goodput=goodput,
        )
        for label, choice in choices.items()
    }


def demand_of(request: Request) -> tuple[Demand, float]:
    """Return what a comparison's requests are drawn from, and at which rate; infinite where all come at once."""
    asked = math.inf if request.request_rate is None else request.request_rate
    demand = Demand(
        source=request.workload,
        num_prompts=request.num_prompts,
        burstiness=request.burstiness,
        sort=request.sort,
    )
    if request.workload in preset_names():
        return demand, asked
    itself = open_workload(request.workload, num_prompts=request.num_prompts, sort=request.sort)
    if not itself.timed:
        return demand, asked
    own = itself.rate_per_s if itself.span_s > 0 else math.inf
    return replace(demand, arrivals="trace"), own if request.request_rate is None else asked
