"""The options of the command line that say which policies run on what."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from policies.catalog import PolicyChoice
from policies.selection import parse_policies
from simulator.cluster_options import ClusterOptions
from simulator.scenario import length_limit
from simulator.trials.candidate import Candidate


@dataclass(frozen=True, kw_only=True)
class DeploymentOptions(ClusterOptions):
    """What a person asked to run on what; each field is the option of that name."""

    policies: str
    model: str
    device: str
    profile: Path | None = None
    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    gpu_memory_utilization: float = 0.9
    block_size: int = 16
    max_model_len: int | None = None
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None

    def choices(self, **others: Any) -> dict[str, PolicyChoice]:
        """Return the policies by label; ``others`` are further settings for those that have them and say nothing.

        Raises
        ------
        InputError
            If one cannot be read, or has no such setting.
        """
        shared = {"max_num_seqs": self.max_num_seqs, "max_num_batched_tokens": self.max_num_batched_tokens}
        return parse_policies(self.policies, settings={**shared, **others})

    def candidate(self, choice: PolicyChoice, longest: int, **others: Any) -> Candidate:
        """Return a policy on what is asked for, for requests of ``longest`` tokens at most; ``others`` are further
        fields of the candidate."""
        return Candidate(
            choice=choice,
            model=self.model,
            device=self.device,
            max_model_len=self.max_model_len or length_limit(longest, self.model),
            profile=None if self.profile is None else str(self.profile),
            tensor_parallel_size=self.tensor_parallel_size,
            pipeline_parallel_size=self.pipeline_parallel_size,
            gpu_memory_utilization=self.gpu_memory_utilization,
            block_size=self.block_size,
            cluster=self.cluster_settings(),
            **others,
        )
