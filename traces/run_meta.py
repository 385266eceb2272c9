"""What was run, on what: the content of a record's ``run.json``, of this schema version and of older ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import inf, nan
from os import PathLike
from typing import Any

import numpy as np
import numpy.typing as npt

from traces.errors import InputError
from traces.settings import from_mapping

SCHEMA_VERSION = 3
READABLE = (1, 2, SCHEMA_VERSION)
"""Version 1 marks no iteration as outside of a profile; versions 1 and 2 know one group of equal replicas."""
SOURCES = ("simulator", "engine")
ROLES = ("both", "prefill", "decode")
GROUPED_SINCE = 3
GROUP_KEYS = ("deployment", "stages", "gpus", "kv_blocks", "peak_flops", "max_num_seqs", "cost_model")
"""What older versions say once, of replicas that are all alike."""


@dataclass(frozen=True, kw_only=True)
class ReplicaGroup:
    """Replicas that are alike.

    Attributes
    ----------
    count
        How many.
    role
        What they run: "both", "prefill" or "decode".
    deployment
        Its description.
    stages, gpus
        Pipeline stages and GPUs of one replica.
    kv_blocks
        KV blocks of one replica.
    peak_flops
        Peak FLOP/s of one replica (per GPU x its GPUs); None where unknown.
    max_num_seqs
        Most sequences resident on one replica at once.
    cost_model
        Where simulated times come from (``device``, ``from``, ``transferred``); None for measured ones.
    """

    count: int
    role: str
    deployment: dict[str, Any]
    stages: int
    gpus: int
    kv_blocks: int
    peak_flops: float | None
    max_num_seqs: int
    cost_model: dict[str, Any] | None

    def __post_init__(self) -> None:
        for name in ("count", "stages", "gpus", "kv_blocks", "max_num_seqs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected an integer >= 1")
        if self.role not in ROLES:
            raise ValueError(f"role is {self.role!r}; expected one of {', '.join(ROLES)}")
        if self.peak_flops is not None and not 0 < self.peak_flops < inf:
            raise ValueError(f"peak_flops is {self.peak_flops}; expected a number > 0, or null")


@dataclass(frozen=True, kw_only=True)
class ReplicaFailure:
    """A replica that failed, and what that cost.

    It was down from ``failed_s`` to ``recovered_s`` (None: to the end). ``requests`` were on it and went back to
    the queue; KV of ``tokens`` had been computed for them and was lost.
    """

    replica: int
    failed_s: float
    recovered_s: float | None
    requests: int
    tokens: int

    def __post_init__(self) -> None:
        for name in ("replica", "requests", "tokens"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; expected an integer >= 0")
        if not -inf < self.failed_s <= self.until_s or self.recovered_s == inf:
            raise ValueError(f"down from {self.failed_s} to {self.recovered_s}; expected seconds, ascending")

    @property
    def until_s(self) -> float:
        """When it was up again, infinity where it never was."""
        return inf if self.recovered_s is None else self.recovered_s


@dataclass(frozen=True, kw_only=True)
class RunMeta:
    """The content of ``run.json``: what was run, on what.

    Attributes
    ----------
    schema_version
        Version of this layout.
    source
        "simulator" or "engine".
    policy
        ``{"name": ..., **settings}``.
    workload
        Its description, with at least ``name``.
    seed
        Seed of all random draws; None where there were none.
    groups
        The replicas, which are numbered through the groups in order.
    block_size
        Tokens of a KV block.
    router
        What spread the requests over the replicas, with its ``name``; None for a single replica.
    link
        What moved KV from prefill to decode replicas; None where nothing did.
    failures
        In order of ``failed_s``.
    versions
        Of what produced the record.
    """

    schema_version: int
    source: str
    policy: dict[str, Any]
    workload: dict[str, Any]
    seed: int | None
    groups: tuple[ReplicaGroup, ...]
    block_size: int
    router: dict[str, Any] | None
    link: dict[str, Any] | None
    failures: tuple[ReplicaFailure, ...]
    versions: dict[str, Any]

    def __post_init__(self) -> None:
        if self.source not in SOURCES:
            raise ValueError(f"source is {self.source!r}; expected one of {', '.join(SOURCES)}")
        if self.block_size < 1:
            raise ValueError(f"block_size is {self.block_size}; expected an integer >= 1")
        if not self.groups:
            raise ValueError("groups is empty; expected at least one group of replicas")
        for failure in self.failures:
            if failure.replica >= self.replicas:
                raise ValueError(f"replica {failure.replica} failed; expected one from 0 to {self.replicas - 1}")

    @property
    def replicas(self) -> int:
        """Replicas of all groups together."""
        return sum(group.count for group in self.groups)

    @property
    def stages(self) -> int:
        """The most pipeline stages of any replica."""
        return max(group.stages for group in self.groups)

    @property
    def gpus(self) -> int:
        """GPUs of all replicas together."""
        return sum(group.count * group.gpus for group in self.groups)

    @property
    def kv_blocks(self) -> int:
        """KV blocks of all replicas together."""
        return sum(group.count * group.kv_blocks for group in self.groups)

    @property
    def max_num_seqs(self) -> int:
        """Most residents of all replicas together."""
        return sum(group.count * group.max_num_seqs for group in self.groups)

    @property
    def peak_flops(self) -> float | None:
        """Peak FLOP/s of all replicas together; None where one of them is unknown."""
        peak = float(self.of_each("peak_flops").sum())
        return None if np.isnan(peak) else peak

    def group_of(self, replica: int) -> ReplicaGroup:
        """Return the group of a replica."""
        left = replica
        for group in self.groups:
            if 0 <= left < group.count:
                return group
            left -= group.count
        raise IndexError(f"replica {replica} of {self.replicas}")

    def of_each(self, name: str) -> npt.NDArray[np.float64]:
        """Return a figure of :class:`ReplicaGroup` for each replica, float64 [replicas], NaN where unknown."""
        figures = [nan if getattr(group, name) is None else float(getattr(group, name)) for group in self.groups]
        return np.repeat(figures, [group.count for group in self.groups])

    def as_dict(self) -> dict[str, Any]:
        """Return the content of ``run.json``."""
        return asdict(self)


def read_meta(document: Mapping[str, Any], where: str | PathLike[str]) -> RunMeta:
    """Return what a ``run.json`` says, one of an older version in the words of this.

    Raises
    ------
    InputError
        If the version is not readable, or a key is missing, unknown, of the wrong type or value.
    """
    version = document.get("schema_version")
    if isinstance(version, bool) or version not in READABLE:
        expected = f"{', '.join(map(str, READABLE[:-1]))} or {READABLE[-1]}"
        raise InputError(f"schema version {version}", where=where, expected=expected)
    given = document if version >= GROUPED_SINCE else _grouped(document)
    return from_mapping(RunMeta, {**given, "schema_version": SCHEMA_VERSION}, where=where)


def _grouped(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document of an older version with its equal replicas as one group."""
    given = dict(document)
    group = {key: given.pop(key) for key in GROUP_KEYS if key in given}
    count = given.pop("replicas", 1)
    if isinstance(count, int) and isinstance(group.get("gpus"), int) and count > 1:
        group["gpus"] //= count
    groups = [{"count": count, "role": "both", **group}]
    return {**given, "groups": groups, "router": None, "link": None, "failures": []}
