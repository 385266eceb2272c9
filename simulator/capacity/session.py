"""What ``capacity`` does: check, search, print, write."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from simulator.capacity.capacity import Capacity, check_trials, find_capacity
from simulator.capacity.document import document
from simulator.capacity.slo import Slo, parse_slo
from simulator.capacity.table import print_capacities
from simulator.capacity.verdict import unmet
from simulator.deployment_options import DeploymentOptions
from simulator.session import command_line
from simulator.trials.candidate import Candidate
from simulator.trials.plan import carry_out, side_by_side
from simulator.trials.watched import watched_processes
from traces.arrivals import check_rate
from traces.demand import ArrivalKind, Demand
from traces.errors import InputError
from traces.files import whole_folder, write_json
from traces.goodput import parse_goodput

DOCUMENT, REPORT = "capacity.json", "report.html"
TOLERANCES = (0.001, 1.0)


@dataclass(frozen=True, kw_only=True)
class Request(DeploymentOptions):
    """What a person asked of ``capacity``; each field is the option of that name."""

    workload: str
    output: Path
    slo: list[str] | None = None
    goodput: list[str] | None = None
    goodput_share: float = 0.99
    no_stability: bool = False
    seeds: int = 3
    most_trials: int = 15
    tolerance: float = 0.025
    guess: float | None = None
    arrivals: ArrivalKind = "poisson"
    burstiness: float = 1.0
    num_prompts: int | None = None
    seed: int = 0
    sort: bool = False

    def demand(self) -> Demand:
        """Return the requests that are asked for."""
        return Demand(
            source=self.workload,
            num_prompts=self.num_prompts,
            arrivals=self.arrivals,
            burstiness=self.burstiness,
            sort=self.sort,
        )

    def objective(self) -> Slo:
        """Return the SLO that is asked for."""
        rule = parse_goodput(self.goodput) if self.goodput else None
        return parse_slo(self.slo or "", goodput=rule, share=self.goodput_share)

    def candidates(self, longest: int) -> dict[str, Candidate]:
        """Return the policies that are asked for, with what they run on, for requests of so many tokens at most.

        One that keeps a time between tokens keeps that of the SLO, unless told otherwise.
        """
        choices = self.choices(tbt_s=self.objective().tbt_s)
        return {label: self.candidate(choice, longest) for label, choice in choices.items()}


def capacity(request: Request, *, as_json: bool = False) -> dict[str, Capacity]:
    """Find the capacities that are asked for, write them to ``request.output``, and print the table.

    Raises
    ------
    InputError
        If anything asked for is wrong, or no policy has a capacity: none meets the SLO at any rate, or the requests
        are too few to find the limit of any. Nothing is written then.
    """
    from simulator.capacity.report import Search, write_report

    _check(request)
    slo, demand = request.objective(), request.demand()
    candidates = request.candidates(demand.longest)
    for candidate in candidates.values():
        candidate.scenario(demand.workload(1.0, request.seed), seed=request.seed)
    command = command_line("capacity", request)
    with whole_folder(
        request.output, marker=DOCUMENT, is_ours=lambda entry: entry.name in (DOCUMENT, REPORT)
    ) as folder:
        found = _find(request, candidates, demand, slo)
        _check_found(found, slo)
        write_json(folder / DOCUMENT, document(found, slo, demand, command))
        facts = list(_facts(request, demand))
        write_report(folder / REPORT, Search(capacities=found, slo=slo, facts=facts, command=command))
    if as_json:
        print(json.dumps(document(found, slo, demand, command), indent=2))
    else:
        print_capacities(found, slo, " · ".join(text for _, text in facts))
        print(f"Report: {request.output / REPORT}")
    return found


def _check(request: Request) -> None:
    check_trials(request.seeds, request.most_trials)
    if request.seed < 0:
        raise InputError(f"a seed of {request.seed}", where="--seed", expected="an integer >= 0")
    least, most = TOLERANCES
    if not least <= request.tolerance <= most:
        what = f"a tolerance of {request.tolerance:g}"
        raise InputError(what, where="--tolerance", expected=f"a share from {least:g} to {most:g}")
    if request.guess is not None:
        check_rate(request.guess)


def _find(request: Request, candidates: Mapping[str, Candidate], demand: Demand, slo: Slo) -> dict[str, Capacity]:
    plans = {
        label: find_capacity(
            candidate,
            demand,
            slo,
            seeds=request.seeds,
            seed=request.seed,
            tolerance=request.tolerance,
            most_trials=request.most_trials,
            guess_per_s=request.guess,
            stability=not request.no_stability,
        )
        for label, candidate in candidates.items()
    }
    with watched_processes(candidates, request.most_trials, "simulations at most") as run:
        return carry_out(side_by_side(plans), run)


def _check_found(found: Mapping[str, Capacity], slo: Slo) -> None:
    if all(each.unmet for each in found.values()):
        said = "; ".join(f"{label} has {unmet(each)}" for label, each in found.items())
        raise InputError(f"no policy meets {slo} at any rate: {said}", expected="limits that can be met")
    if all(each.unlimited for each in found.values()):
        what = f"{slo} holds even with all requests at once, which are too few to find the limit"
        raise InputError(what, where="--num-prompts", expected="more requests, or a stricter SLO")


def _facts(request: Request, demand: Demand) -> Iterator[tuple[str, str]]:
    gaps = "the trace's own gaps" if demand.arrivals == "trace" else "Poisson arrivals"
    if demand.burstiness != 1:
        gaps = f"gamma gaps of burstiness {demand.burstiness:g}"
    yield "Workload", f"{demand.source}, {demand.requests:,} requests, {gaps}"
    yield "Model", request.model
    yield "Device", f"{request.device}, TP {request.tensor_parallel_size}, PP {request.pipeline_parallel_size}"
    yield "Seeds", f"{request.seeds} seeds from {request.seed} on"
