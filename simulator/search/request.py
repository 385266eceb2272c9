"""What a person asked of ``search``, and the task that comes of it, everything checked before anything runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from policies.catalog import POLICIES
from policies.routing.catalog import parse_router
from policies.selection import parse_setting
from profiler.device import load_device
from simulator.capacity.capacity import MOST_TRIALS, check_trials
from simulator.capacity.slo import Slo, parse_slo
from simulator.cluster_settings import read_cluster
from simulator.prediction import DRAWS
from simulator.scenario import length_limit
from simulator.search.axis import parse_integers, parse_pairs
from simulator.search.halving import PODIUM
from simulator.search.objective import Objective
from simulator.search.prices import Prices, parse_prices
from simulator.search.rung import rungs
from simulator.search.search import Task
from simulator.search.space import USUAL_AXES, PolicyAxes, Selection, Space, select
from simulator.search.space_file import PRICES, read_space
from simulator.search.usual import DEVICES, INTEGERS
from traces.demand import ArrivalKind, Demand
from traces.errors import InputError
from traces.goodput import parse_goodput

AIM = "tbt_s"
"""The setting of policies that are told which TBT to keep."""
PAPER_SLO = "tbt:100"
"""Where none is given: P99 TBT of 100 ms, and with it the papers' median scheduling delay."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a person asked of ``search``; each field is the option of that name, None where not given."""

    workload: str
    output: Path = Path("out/search")
    num_prompts: int | None = None
    arrivals: ArrivalKind = "poisson"
    burstiness: float = 1.0
    length_scale: float = 1.0
    sort: bool = False
    seed: int = 0
    request_rate: float | None = None
    slo: list[str] | None = None
    goodput: list[str] | None = None
    goodput_share: float = 0.99
    objective: str | None = None
    price: list[str] | None = None
    model: str = "llama-3.1-8b"
    max_model_len: int | None = None
    profile: list[str] | None = None
    gpu_memory_utilization: float = 0.9
    block_size: int = 16
    space: Path | None = None
    policies: str | None = None
    max_num_batched_tokens: str | None = None
    max_num_seqs: str | None = None
    devices: str | None = None
    tensor_parallel_size: str | None = None
    pipeline_parallel_size: str | None = None
    replicas: str | None = None
    disaggregation: str | None = None
    cluster: list[Path] | None = None
    router: str | None = None
    settings: int = 200
    finalists: int = 6
    seeds: int = 3
    most_trials: int = MOST_TRIALS
    draws: int = DRAWS
    workers: int | None = None
    ray: str | None = None

    def demand(self) -> Demand:
        """Return the requests that are to be served."""
        return Demand(
            source=self.workload,
            num_prompts=self.num_prompts,
            arrivals=self.arrivals,
            burstiness=self.burstiness,
            length_scale=self.length_scale,
            sort=self.sort,
        )

    def service_level(self) -> Slo:
        """Return the SLO."""
        goodput = parse_goodput(self.goodput) if self.goodput else None
        terms = self.slo or ([] if goodput else [PAPER_SLO])
        return parse_slo(terms, goodput=goodput, share=self.goodput_share)


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A task, and the selection that its candidates are."""

    task: Task
    selection: Selection


def prepare(request: Request) -> Prepared:
    """Return what is to be searched.

    Raises
    ------
    InputError
        If anything asked for is wrong: nothing has been simulated or written by then.
    """
    _check_counts(request)
    demand, slo = request.demand(), request.service_level()
    asked = _space_fields(request)
    asked["policies"] = tuple(_aimed(axes, slo) for axes in asked.get("policies", USUAL_AXES))
    prices = _prices(request, asked.pop(PRICES, None))
    drawn = demand.workload(1.0, request.seed)
    space = Space(
        model=request.model,
        max_model_len=_length_limit(request, demand),
        gpu_memory_utilization=request.gpu_memory_utilization,
        block_size=request.block_size,
        **asked,
    )
    objective = Objective(
        name=request.objective or ("cost" if prices.usd_per_hour else "goodput-per-gpu"),  # type: ignore[arg-type]
        prices=prices,
        output_tokens=float(drawn.output_tokens.mean()),
        request_rate_per_s=request.request_rate,
    )
    selection = select(space, request.settings, request.seed)
    if objective.name == "cost":
        prices.require({device for each in selection.candidates.values() for device in each.gpus})
    ladder = rungs(
        len(selection.candidates),
        len(drawn),
        finalists=max(PODIUM, request.finalists),
        seed=request.seed,
        seeds=request.seeds,
        most_trials=request.most_trials,
        tolerance=0.025,
    )
    task = Task(
        candidates=selection.candidates,
        demand=demand,
        slo=slo,
        objective=objective,
        ladder=ladder,
        seed=request.seed,
        draws=request.draws,
    )
    return Prepared(task=task, selection=selection)


def _check_counts(request: Request) -> None:
    least = {"settings": 1, "finalists": 1, "draws": 2}
    for name, bound in least.items():
        if getattr(request, name) < bound:
            raise InputError(f"is {getattr(request, name)}", where=f"--{name}", expected=f"an integer >= {bound}")
    if request.workers is not None and request.workers < 1:
        raise InputError(f"is {request.workers}", where="--workers", expected="an integer >= 1")
    check_trials(request.seeds, request.most_trials)


def _space_fields(request: Request) -> dict[str, Any]:
    """Return what is asked of the space: of the file, and before it of the options."""
    fields = {} if request.space is None else read_space(request.space)
    for name in INTEGERS:
        if (text := getattr(request, name)) is not None:
            fields[name] = parse_integers(text, where=f"--{name.replace('_', '-')}")
    if request.policies is not None:
        fields["policies"] = parse_axes(request.policies)
    if request.devices is not None:
        fields["devices"] = _devices(request.devices)
    if request.disaggregation is not None:
        fields["disaggregation"] = parse_pairs(request.disaggregation, where="--disaggregation")
    if request.cluster:
        fields["clusters"] = tuple(read_cluster(path) for path in request.cluster)
    if request.router is not None:
        fields["router"] = parse_router(request.router, where="--router")
    fields["profiles"] = _profiles(request.profile or (), fields.get("devices", DEVICES))
    return fields


def parse_axes(text: str, *, where: str = "--policies") -> tuple[PolicyAxes, ...]:
    """Return the policies that ``sarathi-serve,vllm-v1:enable_prefix_caching=true`` names.

    Raises
    ------
    InputError
        If none is named, or a setting cannot be read.
    """
    items = [item.strip().split(":") for item in text.split(",") if item.strip()]
    if not items:
        raise InputError("names no policy", where=where, expected=f"one of {', '.join(POLICIES)}")
    pairs = [(name, dict(parse_setting(pair, where=where) for pair in own)) for name, *own in items]
    return tuple(PolicyAxes(name=name, settings={key: (value,) for key, value in own.items()}) for name, own in pairs)


def _aimed(axes: PolicyAxes, slo: Slo) -> PolicyAxes:
    """Return a policy that keeps a TBT by itself with that of the SLO, unless one is asked for."""
    known = axes.name in POLICIES and AIM in {each.name for each in fields(POLICIES[axes.name][1])}
    if slo.tbt_s is None or not known or AIM in axes.settings:
        return axes
    return replace(axes, settings={**axes.settings, AIM: (slo.tbt_s,)})


def _devices(text: str) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not found:
        raise InputError("lists nothing", where="--devices", expected="names of devices, or JSON files")
    for name in found:
        load_device(name)
    return found


def _profiles(texts: Sequence[str], devices: Sequence[str]) -> Mapping[str, str]:
    found = {}
    for text in texts:
        device, equals, path = text.rpartition("=")
        if not equals and len(devices) > 1:
            wish = f"DEVICE=PATH, of {', '.join(devices)}"
            raise InputError(f"{text!r} names no device", where="--profile", expected=wish)
        if not Path(path).exists():
            raise InputError("no such file or folder", where=f"--profile {path}", expected="measurements of a device")
        found[device or devices[0]] = path
    unknown = sorted(found.keys() - set(devices))
    if unknown:
        wish = f"one of {', '.join(devices)}"
        raise InputError(f"{unknown[0]!r} is not searched", where="--profile", expected=wish)
    return found


def _prices(request: Request, of_file: Prices | None) -> Prices:
    given = parse_prices(request.price or ()).usd_per_hour
    return Prices(usd_per_hour={**(of_file.usd_per_hour if of_file else {}), **given})


def _length_limit(request: Request, demand: Demand) -> int:
    """Return the longest prompt plus output that is served, which no request exceeds, whatever the seed."""
    longest = demand.longest
    limit = request.max_model_len or length_limit(longest, request.model)
    if longest > limit:
        what = f"a request of {longest} tokens, and {limit} are served"
        raise InputError(what, where=request.workload, expected="a longer --max-model-len, or a --length-scale below 1")
    return limit
