"""The set-up of Sarathi-Serve's evaluation: models, machines, datasets, latency targets, settings of the policies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from policies.catalog import PolicyChoice, choose
from profiler.aggregates import Aggregates
from profiler.cost_model import CostModel
from profiler.deployment import GPUS_PER_NODE, Deployment
from simulator.capacity.slo import PAPER_DELAY, Slo, Term
from simulator.trials.candidate import Candidate
from traces.demand import Demand
from traces.presets import preset_lengths

CHAT, SUMMARIZATION = "chat", "summarization"
DATASETS = (CHAT, SUMMARIZATION)
STRICT, RELAXED = "strict", "relaxed"
TARGETS = (STRICT, RELAXED)
ORCA, VLLM, SARATHI_SERVE = "orca", "vllm", "sarathi-serve"
SYSTEMS = (ORCA, VLLM, SARATHI_SERVE)
TITLES = {
    ORCA: "Orca",
    VLLM: "vLLM",
    SARATHI_SERVE: "Sarathi-Serve",
    CHAT: "ShareGPT4 chat",
    SUMMARIZATION: "arXiv summarisation",
}
SHORT = {CHAT: "chat", SUMMARIZATION: "arXiv"}
TIMES = {STRICT: 5, RELAXED: 25}
"""Latency targets as multiples of an iteration of :data:`TARGET_BATCH` (section 5.1)."""
TARGET_BATCH = Aggregates.of(decodes=32, context=4096)
REQUESTS = 2048
SEQUENCES = 128
KV_UTILISATION = 0.85
"""Share of a device's memory that weights, activations and KV fill."""
GENERATED = (
    "Requests are drawn from log-normal lengths that meet the medians and 90th percentiles which the paper prints of "
    "its datasets; neither is used itself, and arXiv cut at 16,384 tokens is not public. Arrivals are Poisson."
)


@dataclass(frozen=True, kw_only=True)
class Setup:
    """A model as the paper serves it (tables 1 and 3, sections 5 and 5.1).

    Attributes
    ----------
    model, device, tensor_parallel_size, pipeline_parallel_size
        Presets, and how the model is split.
    gpus_per_node
        GPUs of each of its machines.
    tbt_s
        Limits on the P99 TBT by :data:`TARGETS`, in seconds.
    budgets
        Token budgets of Sarathi-Serve by :data:`TARGETS`.
    orca_sequences
        The batch of Orca, which reserves KV for the longest request.
    sequences
        At most resident with vLLM and Sarathi-Serve, in all micro-batches together.
    first_per_s
        The rates that the paper's own search begins with, by dataset, in requests/s.
    """

    model: str
    device: str
    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    gpus_per_node: int = GPUS_PER_NODE
    tbt_s: Mapping[str, float]
    budgets: Mapping[str, int]
    orca_sequences: int
    first_per_s: Mapping[str, float]
    sequences: int = SEQUENCES

    def choice(self, system: str, dataset: str, target: str) -> PolicyChoice:
        """Return a policy with the paper's settings."""
        if system == ORCA:
            return choose(ORCA, max_num_seqs=self.orca_sequences)
        budget = longest(dataset) if system == VLLM else self.budgets[target]
        return choose(system, max_num_seqs=self.sequences, max_num_batched_tokens=budget)

    def candidate(self, choice: PolicyChoice, dataset: str, **others: Any) -> Candidate:
        """Return a policy on the paper's machine; ``others`` are further fields of the candidate."""
        where = {
            "model": self.model,
            "device": self.device,
            "tensor_parallel_size": self.tensor_parallel_size,
            "pipeline_parallel_size": self.pipeline_parallel_size,
            "gpus_per_node": self.gpus_per_node,
            "gpu_memory_utilization": KV_UTILISATION,
            "max_model_len": longest(dataset),
        }
        return Candidate(choice=choice, **{**where, **others})

    def slo(self, target: str) -> Slo:
        """Return a latency target: P99 TBT, and a median scheduling delay of at most 2 s."""
        return slo_of(self.tbt_s[target])

    @property
    def deployment(self) -> Deployment:
        """The model on its machine."""
        return self.candidate(self.choice(SARATHI_SERVE, CHAT, STRICT), CHAT).deployments()[0]

    @property
    def title(self) -> str:
        """The model on its machine, in words."""
        known, stages = self.deployment, self.pipeline_parallel_size
        split = f", TP{self.tensor_parallel_size}" * (known.gpus > 1) + f"-PP{stages}" * (stages > 1)
        return f"{known.spec.name} on {known.gpus} {known.hardware.title}{split}"


def slo_of(tbt_s: float) -> Slo:
    """Return the paper's SLO with a limit on the P99 TBT, in seconds."""
    return Slo(terms=(Term(latency="TBT", figure="p99", limit_s=tbt_s), PAPER_DELAY))


def target_iteration_s(costs: CostModel) -> float:
    """Return how long the iteration takes that targets are multiples of, all stages together, in seconds."""
    stages = range(costs.deployment.pipeline_parallel_size)
    return sum(costs.iteration_time(TARGET_BATCH, stage) for stage in stages)


def longest(dataset: str) -> int:
    """Return the most tokens that a request of a dataset has, prompt and output."""
    total = preset_lengths(dataset).total_max
    assert total is not None
    return total


def demand(dataset: str, requests: int = REQUESTS) -> Demand:
    """Return the requests of a dataset."""
    return Demand(source=dataset, num_prompts=requests)


MISTRAL_7B = Setup(
    model="mistral-7b",
    device="a100-pcie",
    tbt_s={STRICT: 0.1, RELAXED: 0.5},
    budgets={STRICT: 512, RELAXED: 2048},
    orca_sequences=16,
    first_per_s={CHAT: 4.0, SUMMARIZATION: 2.0},
)
YI_34B = Setup(
    model="yi-34b",
    device="a100-pcie",
    tensor_parallel_size=2,
    tbt_s={STRICT: 0.2, RELAXED: 1.0},
    budgets={STRICT: 512, RELAXED: 2048},
    orca_sequences=16,
    first_per_s={CHAT: 2.0, SUMMARIZATION: 1.0},
)
LLAMA2_70B = Setup(
    model="llama-2-70b",
    device="a40",
    tensor_parallel_size=4,
    pipeline_parallel_size=2,
    tbt_s={STRICT: 1.0, RELAXED: 5.0},
    budgets={STRICT: 512, RELAXED: 1536},
    orca_sequences=8,
    first_per_s={CHAT: 1.0, SUMMARIZATION: 0.5},
)
FALCON_180B = Setup(
    model="falcon-180b",
    device="a100-pcie",
    tensor_parallel_size=4,
    pipeline_parallel_size=2,
    gpus_per_node=4,
    tbt_s={STRICT: 1.0, RELAXED: 5.0},
    budgets={STRICT: 512, RELAXED: 2048},
    orca_sequences=8,
    first_per_s={CHAT: 1.6, SUMMARIZATION: 0.8},
)
