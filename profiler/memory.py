"""What fills a GPU's memory, from first principles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from traces.errors import InputError

if TYPE_CHECKING:
    from profiler.deployment import Deployment

GIB = 2**30
CONTEXT_BYTES = 551 * 2**20
"""CUDA context, kernels and workspaces: 551 MB in NVIDIA's aiconfigurator (a100_sxm.yaml, before its safety margin)."""
NCCL_BYTES = {1: 0, 2: 358_612_992}
NCCL_BYTES_MANY = 411_041_792
"""NCCL's buffers by GPUs of a group: ``nccl_mem`` of the same file (342 MB for two, 392 MB for four and eight)."""
FLOAT32_BYTES = 4
FLOAT32_LOGITS = 3
"""Logits as float32, their softmax, and one more copy while sampling sorts or masks them."""


@dataclass(frozen=True, kw_only=True)
class StageMemory:
    """Bytes on one GPU of a pipeline stage.

    Attributes
    ----------
    weights
        This GPU's share of its stage's layers; the embedding on the first stage, the head on the last.
    activations
        The peak of the largest batch (see :func:`activation_bytes`).
    reserve
        CUDA context, workspaces and NCCL buffers: fixed, from published measurements.
    kv_block
        One KV block of this stage's layers.
    stage
        Which stage.
    """

    weights: int
    activations: int
    reserve: int
    kv_block: int
    stage: int

    def kv_blocks(self, deployment: Deployment) -> int:
        """Return how many KV blocks fit.

        Raises
        ------
        InputError
            If not even one does.
        """
        memory = deployment.hardware.memory_bytes
        free = int(memory * deployment.gpu_memory_utilization) - self.weights - self.activations - self.reserve
        if free < self.kv_block:
            raise self._too_big(deployment, memory)
        return free // self.kv_block

    def _too_big(self, deployment: Deployment, memory: float) -> InputError:
        usable = memory * deployment.gpu_memory_utilization
        model, device, ways = deployment.spec, deployment.hardware, deployment.tensor_parallel_size
        held = self.weights + self.activations + self.reserve
        what = (
            f"{model.name} does not fit {device.name}: {self.weights / GIB:.1f} GiB of weights a GPU and "
            f"{(held - self.weights) / GIB:.1f} GiB of activations and reserve leave no KV block of the "
            f"{usable / GIB:.1f} GiB that may be used ({memory / GIB:.1f} GiB x {deployment.gpu_memory_utilization:g})"
        )
        more = ways * 2
        while model.heads % more == 0 and self.weights * ways / more > 0.8 * usable:
            more *= 2
        wish = f"--tensor-parallel-size {more}" if model.heads % more == 0 else "a larger device or more stages"
        return InputError(what, where=f"stage {self.stage}", expected=wish)


def stage_memory(deployment: Deployment, stage: int) -> StageMemory:
    """Return what a GPU of ``stage`` holds."""
    model, ways, stages = deployment.spec, deployment.tensor_parallel_size, deployment.pipeline_parallel_size
    return StageMemory(
        weights=model.weight_bytes(ways, stages, stage),
        activations=activation_bytes(deployment, stage),
        reserve=CONTEXT_BYTES + NCCL_BYTES.get(deployment.gpus, NCCL_BYTES_MANY),
        kv_block=deployment.block_size * model.kv_bytes_per_token(ways, stages, stage),
        stage=stage,
    )


def activation_bytes(deployment: Deployment, stage: int) -> int:
    """Return the activation peak of the largest batch on one GPU of ``stage``.

    Hidden states and residual of all tokens, and the wider of: the MLP's input and output beside each other (gate
    and up, then their product), or queries, keys, values and attention output. The last stage also holds the
    logits of every sampled token: as computed, and three times as float32 while they are sampled. The larger of
    the two counts, since neither is there while the other runs.
    """
    model, ways, width = deployment.spec, deployment.tensor_parallel_size, deployment.spec.dtype_bytes
    tokens = deployment.max_num_batched_tokens
    heads, kv_heads = model.heads_on(ways)
    mlp = (3 if model.gated else 2) * model.intermediate / ways
    attention = 2 * (heads + kv_heads) * model.head_dim
    layer = tokens * (2 * model.hidden + max(mlp, attention)) * width
    logits = 0.0
    if stage == deployment.pipeline_parallel_size - 1:
        sampled = min(tokens, deployment.max_num_seqs)
        logits = sampled * model.vocab * (width + FLOAT32_LOGITS * FLOAT32_BYTES)
        logits += tokens * 2 * model.hidden * width
    return int(max(layer, logits))
