"""One answer to the question what to deploy: a policy with its settings, on replicas of a model."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from policies.catalog import PolicyChoice
from profiler.deployment import GPUS_PER_NODE, Deployment
from simulator.cluster import settled
from simulator.cluster_settings import ClusterSettings, GroupSettings
from simulator.scenario import build_scenario, place
from simulator.simulation import Scenario
from traces.workload import Workload

BUDGETS = ("max_num_seqs", "max_num_batched_tokens")
"""Settings that a label always names."""
IN_HARDWARE = ("count", "role", "device", "tensor_parallel_size", "pipeline_parallel_size")
"""Settings of a group that its hardware tells in words of their own."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A policy, and what it runs on.

    Attributes
    ----------
    choice
        The policy with its settings.
    cluster
        How many replicas of which kind; what its groups leave open is as the fields here say.
    profile
        A folder that ``python -m profiler`` wrote; None: the coefficients that ship with the package.
    max_model_len
        Longest prompt plus output.
    beside
        Policies that it is compared with: the KV memory leaves room for the largest batch of each, so that all have
        the same.
    strict
        Whether a batch outside of what was measured is an error.
    model, device, tensor_parallel_size, pipeline_parallel_size, gpu_memory_utilization, block_size
        As the options of these names.
    gpus_per_node
        GPUs of a machine (:class:`profiler.deployment.Deployment`).
    """

    choice: PolicyChoice
    model: str
    device: str
    max_model_len: int
    profile: str | None = None
    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    gpu_memory_utilization: float = 0.9
    block_size: int = 16
    gpus_per_node: int = GPUS_PER_NODE
    cluster: ClusterSettings = field(default_factory=ClusterSettings)
    beside: tuple[PolicyChoice, ...] = ()
    strict: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return all of it as JSON values, but for what was predicted of the policy."""
        document = asdict(self)
        for choice in (document["choice"], *document["beside"]):
            choice.pop("predicted")
        if self.gpus_per_node == GPUS_PER_NODE:
            del document["gpus_per_node"]
        return document

    @property
    def label(self) -> str:
        """The policy, its budgets and other settings that are not its defaults, and what it runs on, in one line."""
        chosen = self.choice.settings
        own = {
            field.name: getattr(chosen, field.name)
            for field in fields(chosen)
            if getattr(chosen, field.name) != (None if field.name in BUDGETS else field.default)
        }
        text = ", ".join(f"{name} {value}" for name, value in own.items())
        return f"{self.choice.name} ({text}) on {self.hardware}"

    @property
    def hardware(self) -> str:
        """The devices, how a replica is split over them, how many replicas there are, and what of the cluster is not as
        usual, in a few words: equal for equal clusters alone, as far as they are on the same model and memory."""
        parts = []
        for group, placed in zip(self.cluster.groups, self._placements(), strict=True):
            role = "" if group.role == "both" else f"{group.role} "
            ways = f"TP {placed['tensor_parallel_size']} PP {placed['pipeline_parallel_size']}"
            count = "" if self.cluster.replicas == 1 else f"{group.count} x "
            own = _unusual(group, GroupSettings(), without=IN_HARDWARE)
            parts.append(f"{role}{count}{placed['device']} {ways}{own}")
        nodes = "" if self.gpus_per_node == GPUS_PER_NODE else f", {self.gpus_per_node} GPUs a node"
        return " + ".join(parts) + nodes + self._between

    @property
    def _between(self) -> str:
        """What there is beside the replicas, where it is not as usual."""
        usual, cluster = ClusterSettings(), self.cluster
        router = cluster.router.as_dict()
        name, own = router.pop("name"), ", ".join(f"{key} {value}" for key, value in router.items())
        routed = "" if cluster.replicas == 1 or cluster.router == usual.router else f" behind {name}"
        link, failures = _unusual(cluster.link, usual.link), _unusual(cluster.failures, usual.failures)
        return routed + (f" ({own})" if routed and own else "") + link + failures

    @property
    def gpus(self) -> dict[str, int]:
        """How many devices of each kind all replicas have together."""
        found: dict[str, int] = {}
        for group, placed in zip(self.cluster.groups, self._placements(), strict=True):
            ways = placed["tensor_parallel_size"] * placed["pipeline_parallel_size"]
            found[placed["device"]] = found.get(placed["device"], 0) + group.count * ways
        return found

    @property
    def names(self) -> set[str]:
        """Presets or paths: of the model, of devices, of profiles."""
        groups = self.cluster.groups
        named = {self.model, self.device, self.profile}
        return {name for name in named.union(*((each.device, each.profile) for each in groups)) if name is not None}

    def deployments(self) -> tuple[Deployment, ...]:
        """Return the deployment of a replica of each group.

        Raises
        ------
        InputError
            If the model cannot be split so.
        """
        common = {"model": self.model, "max_model_len": self.max_model_len, **self._placement()}
        return tuple(
            place(group, [settled(self.choice, group.policy_settings())], common) for group in self.cluster.groups
        )

    def _placement(self) -> dict[str, Any]:
        return {
            "device": self.device,
            "tensor_parallel_size": self.tensor_parallel_size,
            "pipeline_parallel_size": self.pipeline_parallel_size,
            "gpu_memory_utilization": self.gpu_memory_utilization,
            "block_size": self.block_size,
            "gpus_per_node": self.gpus_per_node,
        }

    def _placements(self) -> list[dict[str, Any]]:
        return [{**self._placement(), **group.placement()} for group in self.cluster.groups]

    def scenario(self, workload: Workload, *, seed: int = 0) -> Scenario:
        """Return what to simulate, checked.

        Raises
        ------
        InputError
            If the model does not fit, or the policy can never serve a request.
        """
        return build_scenario(
            workload,
            model=self.model,
            profile=None if self.profile is None else Path(self.profile),
            max_model_len=self.max_model_len,
            policies=(self.choice, *self.beside),
            strict=self.strict,
            seed=seed,
            cluster=self.cluster,
            **self._placement(),
        )


def _unusual(settings: Any, usual: Any, without: Collection[str] = ()) -> str:
    """Return the settings that are not as usual, in brackets; "" where all are."""
    own = {name: value for name, value in vars(settings).items() if name not in without}
    text = ", ".join(f"{name} {value}" for name, value in own.items() if value != getattr(usual, name))
    return f" ({text})" if text else ""
