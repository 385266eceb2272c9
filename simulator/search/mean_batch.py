"""What the time of a deployment's mean batch goes into: compute, memory bandwidth, communication, overhead."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from profiler.aggregates import Aggregates
from profiler.cost_model import CostModel
from simulator.cluster import Cluster, Group
from traces.workload import Workload

COMPUTE, MEMORY, COMMUNICATION, OVERHEAD = "compute", "memory bandwidth", "communication", "overhead"


@dataclass(frozen=True, kw_only=True)
class MeanBatch:
    """The mean batch of a run, on its slowest stage.

    Attributes
    ----------
    decodes, prompt_tokens
        What it holds.
    time_s
        How long the cost model lets it take.
    shares
        Of that time, by what it goes into; they add up to 1.
    """

    decodes: int
    prompt_tokens: int
    time_s: float
    shares: Mapping[str, float]

    @property
    def most(self) -> str:
        """What takes the most of it."""
        return max(self.shares, key=lambda name: self.shares[name])


def mean_batch(cluster: Cluster, metrics: Mapping[str, float], workload: Workload) -> MeanBatch:
    """Return the mean batch of a run with such ``metrics`` (:attr:`simulator.trials.outcome.Outcome.metrics`); of a
    disaggregated cluster, that of the replicas that decode.

    Reading all weights once counts as memory bandwidth, as does the attention of decodes, which reads their KV; what
    the matrices take beyond that, for more tokens than one, and the attention of prompts count as compute.
    """
    group = next(each for each in cluster.groups if each.role != "prefill")
    tokens, mean_decodes = metrics["Tokens an iteration"], metrics["Decodes an iteration"]
    decodes = max(0, round(mean_decodes))
    prompts = 0 if group.role == "decode" else max(0, round(tokens - mean_decodes))
    context = round(float(workload.prompt_tokens.mean() + 0.5 * workload.output_tokens.mean()))
    past = round(0.5 * float(workload.prompt_tokens.mean()))
    if not decodes and not prompts:
        decodes = 1
    batch = Aggregates.of(*([prompts] if prompts else []), past=past, decodes=decodes, context=context)
    return _slowest(group, batch)


def _slowest(group: Group, batch: Aggregates) -> MeanBatch:
    parts = [_parts(group.cost_model, batch, stage) for stage in range(group.stages)]
    slowest = max(parts, key=lambda each: sum(each.values()))
    time_s = sum(slowest.values())
    shares = {name: part / time_s for name, part in slowest.items()}
    return MeanBatch(decodes=batch.decodes, prompt_tokens=batch.prefill_tokens, time_s=time_s, shares=shares)


def _parts(model: CostModel, batch: Aggregates, stage: int) -> dict[str, float]:
    whole = model.breakdown(batch, stage)
    least = model.breakdown(Aggregates.of(decodes=1, context=1), stage)
    weights_s = min(whole["linear"], least["linear"])
    head_s = min(whole["head"], least["head"])
    return {
        COMPUTE: whole["linear"] - weights_s + whole["prefill attention"] + whole["head"] - head_s,
        MEMORY: weights_s + whole["decode attention"] + head_s,
        COMMUNICATION: whole["communication"],
        OVERHEAD: whole["overhead"],
    }
