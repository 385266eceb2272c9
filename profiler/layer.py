"""Which ops one pipeline stage runs for a batch, with their shapes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from profiler.deployment import Deployment
    from profiler.model import Linear


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """A weight matrix on one GPU, used ``count`` times an iteration."""

    linear: Linear
    count: int


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """One launch of elementwise work, ``count`` times an iteration.

    Attributes
    ----------
    bytes_per_row
        What it moves for each token (or sampled token), by the kind of op whose efficiency applies.
    """

    bytes_per_row: tuple[tuple[str, float], ...]
    count: int


def layer_matrices(deployment: Deployment, stage: int) -> list[Matrix]:
    """Return the matrices of the stage's layers: query, key and value as one, gate and up as one."""
    linears = deployment.spec.linears(deployment.tensor_parallel_size)
    return [Matrix(linear=linear, count=deployment.stage_layers[stage]) for linear in linears]


def layer_sweeps(deployment: Deployment, stage: int) -> list[Sweep]:
    """Return the elementwise ops of the stage, fused as serving engines fuse them.

    A layer counts: its norms, each fused with the addition before it (the norm reads and writes the hidden
    state, the addition brings reading and writing the residual); rotary embedding of queries and keys;
    writing keys and values to the cache; the activation, fused with the product of gate and up. The first
    stage gathers embeddings, the last ends with a norm.
    """
    model, ways, width = deployment.spec, deployment.tensor_parallel_size, deployment.spec.dtype_bytes
    layers, (heads, kv_heads) = deployment.stage_layers[stage], model.heads_on(ways)
    last = stage == deployment.pipeline_parallel_size - 1
    twice = 2.0 * model.hidden_bytes
    inner_bytes = model.intermediate / ways * width
    rotated_bytes = (heads + kv_heads) * model.head_dim * width
    kv_bytes = 2 * kv_heads * model.head_dim * width
    sweeps = [
        Sweep(bytes_per_row=(("norm", twice), ("add", twice)), count=layers * model.norms + last),
        Sweep(bytes_per_row=(("rope", 2 * rotated_bytes),), count=layers),
        Sweep(bytes_per_row=(("other", 2 * kv_bytes),), count=layers),
        Sweep(bytes_per_row=(("act", (3 if model.gated else 2) * inner_bytes),), count=layers),
    ]
    if stage == 0:
        sweeps.append(Sweep(bytes_per_row=(("embedding", twice),), count=1))
    return sweeps


def layer_all_reduces(deployment: Deployment, stage: int) -> int:
    """Return how many all-reduces of the hidden states the stage runs: none on one GPU, else one or two a layer."""
    ways = deployment.tensor_parallel_size
    embedding = 1 if stage == 0 and ways > 1 else 0
    return deployment.stage_layers[stage] * len(deployment.spec.all_reduces(ways)) + embedding


def head_matrix(deployment: Deployment) -> Matrix:
    """Return the head's matrix on one GPU."""
    return Matrix(linear=deployment.spec.head_linear(deployment.tensor_parallel_size), count=1)


def sampler_sweep(deployment: Deployment) -> Sweep:
    """Return sampling over the logits; how often it passes over them is in the efficiency of its kind."""
    logits_bytes = float(deployment.spec.vocab * deployment.spec.dtype_bytes)
    return Sweep(bytes_per_row=(("sampler", logits_bytes),), count=1)
