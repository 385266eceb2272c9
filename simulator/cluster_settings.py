"""What a person asks of a cluster: groups of replicas, a router, a link, failures; from options or from a file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from os import PathLike
from typing import Any

from policies.routing.catalog import RouterChoice, choose_router
from simulator.failures import FailureSettings, Outage
from traces.errors import InputError
from traces.files import read_json
from traces.run_meta import ROLES
from traces.settings import from_mapping

KEYS = ("groups", "router", "link", "failures")


@dataclass(frozen=True, kw_only=True)
class GroupSettings:
    """Replicas that are alike. What is None is as the command line says it for all.

    Attributes
    ----------
    count
        How many.
    role
        What they run: "both", or of a disaggregated cluster "prefill" or "decode".
    device, profile, tensor_parallel_size, pipeline_parallel_size, gpu_memory_utilization
        As the options of these names.
    max_num_seqs, max_num_batched_tokens
        As the options of these names, for the policies that have them; they come before a policy's own.
    weight
        How much one of them serves compared with one of another group, for the routers; None: by the cost model.
    """

    count: int = 1
    role: str = "both"
    device: str | None = None
    profile: str | None = None
    tensor_parallel_size: int | None = None
    pipeline_parallel_size: int | None = None
    gpu_memory_utilization: float | None = None
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    weight: float | None = None

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"count is {self.count}; expected an integer >= 1")
        if self.role not in ROLES:
            raise ValueError(f"role is {self.role!r}; expected one of {', '.join(ROLES)}")
        if self.weight is not None and not 0 < self.weight < math.inf:
            raise ValueError(f"weight is {self.weight}; expected a number > 0")

    def placement(self) -> dict[str, Any]:
        """Return what a deployment of this group has of its own."""
        names = ("device", "tensor_parallel_size", "pipeline_parallel_size", "gpu_memory_utilization")
        return {name: value for name, value in asdict(self).items() if name in names and value is not None}

    def policy_settings(self) -> dict[str, int]:
        """Return what a policy on this group has of its own."""
        shared = {"max_num_seqs": self.max_num_seqs, "max_num_batched_tokens": self.max_num_batched_tokens}
        return {name: value for name, value in shared.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class LinkSettings:
    """The link over which a prefill replica sends KV.

    Attributes
    ----------
    bandwidth_bytes_per_s
        One direction; None: that of the adapters of a replica's GPUs, by the data sheets, of the slowest group.
    latency_s
        From the start of a transfer to its first byte. The default is assumed, not measured.
    """

    bandwidth_bytes_per_s: float | None = None
    latency_s: float = 0.001

    def __post_init__(self) -> None:
        if self.bandwidth_bytes_per_s is not None and not 0 < self.bandwidth_bytes_per_s < math.inf:
            raise ValueError(f"bandwidth is {self.bandwidth_bytes_per_s:g} bytes/s; expected a number > 0")
        if not 0 <= self.latency_s < math.inf:
            raise ValueError(f"latency is {self.latency_s:g} s; expected seconds >= 0")


@dataclass(frozen=True, kw_only=True)
class ClusterSettings:
    """What a person asks of a cluster; one replica is the simplest.

    Raises
    ------
    InputError
        If prefill replicas have no decode replicas to send to, or the other way round, or there are others beside
        them; if some groups have a weight and others have none; if a replica fails that is not there.
    """

    groups: tuple[GroupSettings, ...] = (GroupSettings(),)
    router: RouterChoice = field(default_factory=RouterChoice)
    link: LinkSettings = LinkSettings()
    failures: FailureSettings = field(default_factory=FailureSettings)

    def __post_init__(self) -> None:
        roles = {group.role for group in self.groups}
        if roles not in ({"both"}, {"prefill", "decode"}):
            wish = "prefill and decode replicas, or replicas of role both alone"
            raise InputError(f"the replicas are {' and '.join(sorted(roles)) or 'none'}", expected=wish)
        if not self.disaggregated and self.link != LinkSettings():
            raise InputError("a link, but no KV that goes over it", expected="prefill and decode replicas")
        if len({group.weight is None for group in self.groups}) > 1:
            raise InputError("only some of the groups have a weight", expected="all of them, or none")
        self.failures.check(self.replicas)

    @property
    def replicas(self) -> int:
        """Replicas of all groups."""
        return sum(group.count for group in self.groups)

    @property
    def disaggregated(self) -> bool:
        """Whether prompts and decodes run on replicas of their own."""
        return self.groups[0].role != "both"


def read_cluster(path: str | PathLike[str]) -> ClusterSettings:
    """Read a cluster from a JSON file.

    It holds ``groups``, a list of the keys of :class:`GroupSettings`; and where they are to differ from the
    defaults ``router``, a name or an object with ``name`` and the router's settings; ``link``, the keys of
    :class:`LinkSettings`; ``failures``, the keys of :class:`simulator.failures.FailureSettings`.

    Raises
    ------
    InputError
        If the file is no JSON object, a key is unknown, missing or of the wrong type, or the parts contradict.
    """
    document = read_json(path)
    for key in document:
        if key not in KEYS:
            raise InputError(f"unknown key {key!r}", where=path, expected=f"one of {', '.join(KEYS)}")
    parts: dict[str, Any] = {"groups": _groups(document.get("groups"), path)}
    if "router" in document:
        parts["router"] = _router(document["router"], path)
    if "link" in document:
        link = _object(document["link"], "link", path)
        parts["link"] = from_mapping(LinkSettings, link, where=f"{path}: link")
    if "failures" in document:
        parts["failures"] = _failures(_object(document["failures"], "failures", path), path)
    try:
        return ClusterSettings(**parts)
    except InputError as error:
        raise InputError(str(error), where=path) from error


def _groups(value: Any, path: str | PathLike[str]) -> tuple[GroupSettings, ...]:
    if not isinstance(value, list) or not value:
        raise InputError("key 'groups' is missing or empty", where=path, expected="a list of groups")
    documents = [_object(each, f"groups[{number}]", path) for number, each in enumerate(value)]
    return tuple(
        from_mapping(GroupSettings, each, where=f"{path}: groups[{number}]") for number, each in enumerate(documents)
    )


def _router(value: Any, path: str | PathLike[str]) -> RouterChoice:
    where = f"{path}: router"
    settings = {"name": value} if isinstance(value, str) else dict(_object(value, "router", path))
    name = settings.pop("name", None)
    if not isinstance(name, str):
        raise InputError("key 'name' is missing or not a name", where=where, expected="the name of a router")
    return choose_router(name, settings, where=where)


def _failures(document: Mapping[str, Any], path: str | PathLike[str]) -> FailureSettings:
    listed = document.get("listed", [])
    if not isinstance(listed, list):
        raise InputError("key 'listed' is no list", where=f"{path}: failures", expected="a list of outages")
    outages = tuple(
        from_mapping(
            Outage,
            _object(each, f"failures: listed[{number}]", path),
            where=f"{path}: failures: listed[{number}]",
        )
        for number, each in enumerate(listed)
    )
    times = {key: value for key, value in document.items() if key != "listed"}
    return from_mapping(FailureSettings, {**times, "listed": outages}, where=f"{path}: failures")


def _object(value: Any, name: str, path: str | PathLike[str]) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{name} is no object", where=path, expected="an object with keys")
    return value
