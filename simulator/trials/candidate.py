"""One answer to the question what to deploy: a policy with its settings, on replicas of a model."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from policies.catalog import PolicyChoice
from simulator.cluster_settings import ClusterSettings
from simulator.scenario import build_scenario
from simulator.simulation import Scenario
from traces.workload import Workload


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
    cluster: ClusterSettings = field(default_factory=ClusterSettings)
    beside: tuple[PolicyChoice, ...] = ()
    strict: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return all of it as JSON values, but for what was predicted of the policy."""
        document = asdict(self)
        for choice in (document["choice"], *document["beside"]):
            choice.pop("predicted")
        return document

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
            device=self.device,
            profile=None if self.profile is None else Path(self.profile),
            max_model_len=self.max_model_len,
            policies=(self.choice, *self.beside),
            strict=self.strict,
            seed=seed,
            cluster=self.cluster,
            tensor_parallel_size=self.tensor_parallel_size,
            pipeline_parallel_size=self.pipeline_parallel_size,
            gpu_memory_utilization=self.gpu_memory_utilization,
            block_size=self.block_size,
        )
