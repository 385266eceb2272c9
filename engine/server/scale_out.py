"""How many replicas there are, and what chooses among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from pathlib import Path
from typing import Any

from engine.session import GPU_SHARE, EngineSettings, policy_choice
from policies.routing.catalog import RouterChoice, choose_router, parse_router
from traces.errors import InputError
from traces.files import read_json

GROUP = (
    *("count", "role", "weight", "device", "profile", "tensor_parallel_size", "pipeline_parallel_size"),
    *("gpu_memory_utilization", "max_num_seqs", "max_num_batched_tokens"),
)
"""What a group may say; ``device`` and ``profile`` are those of the prediction."""


@dataclass(frozen=True, kw_only=True)
class ScaleOut:
    """Several replicas behind a router.

    Attributes
    ----------
    weights
        How much each replica serves compared with the others; as many as there are replicas.
    router
        What chooses.
    ray_address
        The Ray cluster that they run on, as Ray takes it; None to begin one on this machine.
    """

    weights: Sequence[float] = (1.0,)
    router: RouterChoice = field(default_factory=RouterChoice)
    ray_address: str | None = None

    @property
    def replicas(self) -> int:
        """How many there are."""
        return len(self.weights)


def scale_out(
    settings: EngineSettings,
    *,
    replicas: int | None,
    router: str | None,
    cluster: Path | None,
    ray_address: str | None,
) -> ScaleOut | None:
    """Return what is asked of a cluster; None where one engine is, which needs none.

    Raises
    ------
    InputError
        If two options contradict each other, or the file asks for what the engine is not.
    """
    asked = ScaleOut(weights=(1.0,) * (1 if replicas is None else replicas), ray_address=ray_address)
    if cluster is not None:
        if replicas is not None:
            what = "--replicas together with --cluster"
            raise InputError(what, expected="the file alone, which says how many there are")
        asked = replace(read_cluster(cluster, settings), ray_address=ray_address)
    if router is not None:
        asked = replace(asked, router=parse_router(router, where="--router"))
    if asked.replicas == 1 and ray_address is None:
        return None
    return asked


def read_cluster(path: Path, settings: EngineSettings) -> ScaleOut:
    """Read the ``cluster.json`` of a search or of a simulation, as far as the engine can be like it.

    Its groups must agree with ``settings`` and so with each other. Link and failures are the simulation's affair.

    Raises
    ------
    InputError
        If it is none, or says something of a replica that the engine is not.
    """
    document = read_json(path)
    groups = document.get("groups")
    if not isinstance(groups, list) or not groups:
        raise InputError("key 'groups' is missing or empty", where=path, expected="a list of groups")
    counts: list[int] = []
    weights: list[float] = []
    for number, group in enumerate(groups):
        where = f"{path}: groups[{number}]"
        if not isinstance(group, dict):
            raise InputError("is no object", where=where, expected="an object with keys")
        for key in group:
            if key not in GROUP:
                raise InputError(f"unknown key {key!r}", where=where, expected=f"one of {', '.join(GROUP)}")
        count, weight = group.get("count", 1), group.get("weight", 1.0)
        if type(count) is not int or count < 1:
            raise InputError(f"count is {count!r}", where=where, expected="an integer >= 1")
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < inf:
            raise InputError(f"weight is {weight!r}", where=where, expected="a number > 0")
        _check_group(group, settings, where)
        counts.append(count)
        weights += [float(weight)] * count
    return ScaleOut(weights=tuple(weights), router=_router(document.get("router"), f"{path}: router"))


def _check_group(group: Mapping[str, Any], settings: EngineSettings, where: str) -> None:
    """Refuse what the engine would not be."""
    if group.get("role", "both") != "both":
        what = f"replicas of role {group['role']!r}"
        raise InputError(what, where=where, expected="replicas that run both prompts and decodes: the engine's do")
    for name, own in _engine(settings).items():
        said = group.get(name)
        if said is not None and said != own:
            option = f"--{name.replace('_', '-')}"
            raise InputError(f"{name} is {said}, and the engine's {own}", where=where, expected=f"{option} {said}")


def _engine(settings: EngineSettings) -> dict[str, Any]:
    """Return what a replica is, as a group says it; one model on one device."""
    policy = policy_choice(settings).settings
    limits = {
        name: getattr(policy, name) for name in ("max_num_seqs", "max_num_batched_tokens") if hasattr(policy, name)
    }
    share = settings.gpu_memory_utilization or GPU_SHARE
    return {"tensor_parallel_size": 1, "pipeline_parallel_size": 1, "gpu_memory_utilization": share, **limits}


def _router(value: Any, where: str) -> RouterChoice:
    if value is None:
        return RouterChoice()
    settings = {"name": value} if isinstance(value, str) else dict(value) if isinstance(value, dict) else {}
    name = settings.pop("name", None)
    if not isinstance(name, str):
        raise InputError("key 'name' is missing or not a name", where=where, expected="the name of a router")
    return choose_router(name, settings, where=where)
