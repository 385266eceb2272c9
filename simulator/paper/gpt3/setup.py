"""What the experiments with GPT-3 on 64 GPUs share: the requests, the deployments, the three ways to serve them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Protocol

import numpy as np

from policies.blocks import KVMemory
from policies.catalog import PolicyChoice, choose
from profiler.cost_model import CostModel, load_cost_model
from profiler.deployment import Deployment
from profiler.layer import kernels
from profiler.overhead import LAUNCH_GAP_S
from profiler.transfer import load_fitted
from simulator.cluster import Cluster, Group
from simulator.paper.gpt3.micro_batches import FixedChoice
from simulator.paper.gpt3.older_kernels import OlderKernels
from simulator.simulation import Scenario, simulate_in_memory
from traces.lengths import Lengths, ZipfLengths
from traces.run_record import RunRecord
from traces.workload import Workload

MODEL, LONGEST = "gpt3-175b", 4096
WAYS, STAGES, REPLICAS = 8, 8, 8
REQUESTS, CHUNK = 10_000, 256
MEMORY_SHARE = 0.85
"""Of a GPU's memory that the authors' engine fills: they set it in the artifact of Sarathi-Serve; SARATHI says
nothing of it."""
ORCA, SARATHI, TP = "TP8-PP8, Orca best case", "TP8-PP8, SARATHI", "8 x TP8, Orca best case"


class Draw(Protocol):
    """How long requests are (:mod:`traces.lengths`)."""

    def draw(self, count: int, rng: np.random.Generator, /) -> Lengths:
        """Return prompt and output tokens, int64 [count] each."""
        ...


@dataclass(frozen=True, kw_only=True)
class Setup:
    """How the 64 GPUs serve the requests. The defaults are SARATHI's section 5.3, and 4.5 for the engine.

    Attributes
    ----------
    device
        Name of the GPUs' preset.
    requests, lengths
        How many there are, all at time 0, and how long.
    memory_share
        Of a GPU's memory that may be used.
    chunk_tokens
        Tokens of a batch of SARATHI: its chunk is this less the decodes beside it.
    fixed
        Whether micro-batches stay together; else each is formed from what is ready.
    eager
        Whether kernels are launched one by one, as by the paper's engine; else as by vLLM, in CUDA graphs.
    prefill_factor, least_layer_s
        See :class:`simulator.paper.gpt3.older_kernels.OlderKernels`.
    adapter_share
        Of the network adapter of each GPU that a hand-off finds.
    """

    device: str = "a100-sxm"
    requests: int = REQUESTS
    lengths: Draw = field(default_factory=ZipfLengths)
    memory_share: float = MEMORY_SHARE
    chunk_tokens: int = CHUNK
    fixed: bool = True
    eager: bool = True
    prefill_factor: float = 1.0
    least_layer_s: float = 0.0
    adapter_share: float = 1.0

    @cached_property
    def workload(self) -> Workload:
        """The requests, the same for all set-ups that draw from the same lengths."""
        prompt, output = self.lengths.draw(self.requests, np.random.default_rng(0))
        arrival_s = np.zeros(self.requests)
        return Workload(name="zipf", arrival_s=arrival_s, prompt_tokens=prompt, output_tokens=output)

    def deployment(self, stages: int, *, batch_tokens: int = LONGEST, seqs: int = 256) -> Deployment:
        """Return a replica of ``stages`` nodes, with room for batches of ``batch_tokens`` tokens, ``seqs`` sampled."""
        placed = Deployment(
            model=MODEL,
            device=self.device,
            tensor_parallel_size=WAYS,
            pipeline_parallel_size=stages,
            gpu_memory_utilization=self.memory_share,
            max_model_len=LONGEST,
            max_num_batched_tokens=batch_tokens,
            max_num_seqs=seqs,
        )
        if self.adapter_share == 1.0:
            return placed
        rate = self.adapter_share * placed.hardware.internode_bandwidth_bytes_per_s
        return placed.on(replace(placed.hardware, internode_bandwidth_bytes_per_s=rate))

    def batch_limit(self, stages: int) -> int:
        """Return the sequences of a micro-batch: of as many as fit with KV for 4K tokens each, a stage's share."""
        return self.deployment(stages).kv_tokens // LONGEST // stages

    def choice(self, stages: int, chunk_tokens: int) -> PolicyChoice:
        """Return SARATHI with as many sequences as fit; with chunks of 4K it is the best case of Orca (section 5.2)."""
        most = self.batch_limit(stages) * stages
        chosen = choose("sarathi", max_num_seqs=most, chunk_size=chunk_tokens, tile_size=1)
        return FixedChoice(name=chosen.name, settings=chosen.settings) if self.fixed else chosen

    def scenario(self, choice: PolicyChoice, stages: int, *, seqs: int = 256) -> Scenario:
        """Return the requests on one replica of eight stages, or on eight of one, with room for what a policy runs."""
        most = choice.settings.most_tokens(LONGEST)
        deployment = self.deployment(stages, batch_tokens=max(most, LONGEST), seqs=seqs)
        memory = KVMemory(blocks=deployment.kv_blocks, block_size=deployment.block_size, max_model_len=LONGEST)
        group = Group(
            deployment=deployment,
            cost_model=self._cost_model(deployment),
            memory=memory,
            count=REPLICAS // stages,
        )
        return Scenario(workload=self.workload, cluster=Cluster(groups=(group,)))

    def run(self, choice: PolicyChoice, stages: int, *, seqs: int = 256) -> RunRecord:
        """Serve the requests; ``seqs`` is the most sequences of a batch."""
        return simulate_in_memory(self.scenario(choice, stages, seqs=seqs), choice)

    def _cost_model(self, deployment: Deployment) -> CostModel:
        if not self.eager:
            return load_cost_model(deployment)
        launches_s = LAUNCH_GAP_S * kernels(deployment)
        fitted = replace(load_fitted(deployment.hardware), overhead_s=launches_s)
        if self.prefill_factor == 1.0 and self.least_layer_s == 0.0:
            return CostModel(deployment, fitted)
        factor, least_s = self.prefill_factor, self.least_layer_s
        return OlderKernels(deployment, fitted, prefill_factor=factor, least_layer_s=least_s)

    def three_ways(self) -> dict[str, Callable[[], RunRecord]]:
        """Return what runs each of the paper's three scenarios."""
        return {
            ORCA: partial(self.run, self.choice(STAGES, LONGEST), STAGES),
            SARATHI: partial(self.run, self.choice(STAGES, self.chunk_tokens), STAGES),
            TP: partial(self.run, self.choice(1, LONGEST), 1),
        }


def completion_s(run: RunRecord) -> float:
    """Return when the last request was done, in seconds."""
    return float(run.requests.finished_s.max())


def bubble_s(run: RunRecord) -> float:
    """Return the median bubble time of a request, in seconds (:mod:`simulator.bubble_ledger`)."""
    return float(np.median(run.requests.bubble_s))


def busy_share(run: RunRecord) -> float:
    """Return the share of the stages' time until the last request is done that they were busy."""
    stages: int = run.iterations.stage_time_s.shape[1] * run.meta.replicas
    return float(run.iterations.stage_time_s.sum()) / (stages * completion_s(run))
