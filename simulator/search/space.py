"""What is searched: policies with their settings, times the hardware that they may run on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from itertools import product
from typing import Any

import numpy as np

from policies.catalog import POLICIES, PolicyChoice, parse_choice
from policies.routing.catalog import RouterChoice
from simulator.cluster_settings import ClusterSettings, GroupSettings
from simulator.search.usual import DEVICES, INTEGERS, USUAL_POLICIES
from simulator.trials.candidate import Candidate
from traces.errors import InputError

WHERE = "the search space"
STREAM = 0x5EA2
"""Keeps the draw of settings apart from all others of the same seed."""


@dataclass(frozen=True, kw_only=True)
class PolicyAxes:
    """A policy, and the values that each of some settings of it takes."""

    name: str
    settings: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    def combinations(self, shared: Mapping[str, tuple[int, ...]]) -> Iterator[dict[str, Any]]:
        """Yield every combination of settings; of ``shared`` those that the policy has and that are left open here.

        A setting that follows from the deployment by default (vLLM v0's max_num_batched_tokens) is left alone.

        Raises
        ------
        InputError
            If there is no such policy or setting.
        """
        parse_choice(self.name, {}, where=WHERE)
        known = fields(POLICIES[self.name][1])
        for unknown in self.settings.keys() - {each.name for each in known}:
            parse_choice(self.name, {unknown: None}, where=WHERE)
        takes = {each.name for each in known if each.default is not None}
        axes = {**{name: values for name, values in shared.items() if name in takes}, **self.settings}
        for values in product(*axes.values()):
            yield dict(zip(axes, values, strict=True))


USUAL_AXES = tuple(PolicyAxes(name=name) for name in USUAL_POLICIES)


@dataclass(frozen=True, kw_only=True)
class Space:
    """All that may be deployed: each policy, with its settings, on each hardware.

    Attributes
    ----------
    model, max_model_len, profiles, gpu_memory_utilization, block_size, router
        The same for all; ``profiles`` by device.
    policies, max_num_batched_tokens, max_num_seqs
        Of the scheduler.
    devices, tensor_parallel_size, pipeline_parallel_size
        Of a replica.
    replicas, disaggregation, clusters
        How many replicas do both; how many prefill and decode replicas there are; clusters as files describe them.
    """

    model: str
    max_model_len: int
    profiles: Mapping[str, str] = field(default_factory=dict)
    gpu_memory_utilization: float = 0.9
    block_size: int = 16
    router: RouterChoice = field(default_factory=RouterChoice)
    policies: tuple[PolicyAxes, ...] = USUAL_AXES
    max_num_batched_tokens: tuple[int, ...] = INTEGERS["max_num_batched_tokens"]
    max_num_seqs: tuple[int, ...] = INTEGERS["max_num_seqs"]
    devices: tuple[str, ...] = DEVICES
    tensor_parallel_size: tuple[int, ...] = INTEGERS["tensor_parallel_size"]
    pipeline_parallel_size: tuple[int, ...] = INTEGERS["pipeline_parallel_size"]
    replicas: tuple[int, ...] = INTEGERS["replicas"]
    disaggregation: tuple[tuple[int, int], ...] = ()
    clusters: tuple[ClusterSettings, ...] = ()

    def candidates(self) -> tuple[list[Candidate], dict[str, str]]:
        """Return everything that the space holds, hardware by hardware, what comes to the same once; and settings that
        a policy refuses, with the reason.

        Raises
        ------
        InputError
            If it holds nothing, or a policy or the name of a setting is not known.
        """
        choices, refused = self._choices()
        if not choices:
            what = next(iter(refused.values()), "no policy")
            raise InputError(f"the search space is empty: {what}", expected="at least one policy on one device")
        places = {placed.hardware: placed for placed in self._places(choices[0])}
        if not places:
            raise InputError("the search space is empty: no device", expected="at least one policy on one device")
        return [replace(placed, choice=choice) for placed in places.values() for choice in choices], refused

    def _choices(self) -> tuple[list[PolicyChoice], dict[str, str]]:
        shared = {"max_num_seqs": self.max_num_seqs, "max_num_batched_tokens": self.max_num_batched_tokens}
        choices: dict[PolicyChoice, None] = {}
        refused: dict[str, str] = {}
        for axes in self.policies:
            for settings in axes.combinations(shared):
                try:
                    choices[parse_choice(axes.name, settings, where=WHERE)] = None
                except InputError as error:
                    text = ", ".join(f"{name} {value}" for name, value in settings.items())
                    refused[f"{axes.name} ({text})"] = str(error)
        return list(choices), refused

    def _places(self, choice: PolicyChoice) -> Iterator[Candidate]:
        splits = product(self.devices, self.tensor_parallel_size, self.pipeline_parallel_size)
        for device, tensor_parallel_size, pipeline_parallel_size in splits:
            for cluster in self._clusters():
                yield Candidate(
                    choice=choice,
                    model=self.model,
                    device=device,
                    max_model_len=self.max_model_len,
                    profile=self.profiles.get(device),
                    tensor_parallel_size=tensor_parallel_size,
                    pipeline_parallel_size=pipeline_parallel_size,
                    gpu_memory_utilization=self.gpu_memory_utilization,
                    block_size=self.block_size,
                    cluster=cluster,
                )

    def _clusters(self) -> Iterator[ClusterSettings]:
        for count in self.replicas:
            yield ClusterSettings(groups=(GroupSettings(count=count),), router=self.router)
        for prefill, decode in self.disaggregation:
            groups = GroupSettings(count=prefill, role="prefill"), GroupSettings(count=decode, role="decode")
            yield ClusterSettings(groups=groups, router=self.router)
        yield from self.clusters


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What of a space is tried, by label, and what cannot run, by label with the reason."""

    candidates: Mapping[str, Candidate]
    impossible: Mapping[str, str]
    size: int


def select(space: Space, settings: int, seed: int) -> Selection:
    """Return up to ``settings`` candidates whose model fits: all there are, or else a draw of them, in their order.

    Raises
    ------
    InputError
        If the space is empty, or nothing in it fits, with the reason of the first.
    """
    everything, refused = space.candidates()
    order = range(len(everything))
    if len(everything) > settings:
        order = np.random.default_rng([STREAM, seed]).permutation(len(everything)).tolist()
    fitting: list[int] = []
    impossible: dict[int, str] = {}
    for index in order:
        if len(fitting) == settings:
            break
        reason = why_not(everything[index])
        if reason is None:
            fitting.append(index)
        else:
            impossible[index] = reason
    if not fitting:
        first = impossible[min(impossible)]
        raise InputError(f"nothing in the search space can run: {first}", expected="more GPUs, or a smaller model")
    return Selection(
        candidates={everything[index].label: everything[index] for index in sorted(fitting)},
        impossible={**{everything[index].label: impossible[index] for index in sorted(impossible)}, **refused},
        size=len(everything) + len(refused),
    )


def why_not(candidate: Candidate) -> str | None:
    """Return why a candidate cannot run at all, before anything is simulated: its memory, how it is split."""
    try:
        for deployment in candidate.deployments():
            deployment.kv_blocks  # noqa: B018
    except InputError as error:
        return str(error)
    return None
