"""Which ops one pipeline stage runs for a batch, with their shapes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from profiler.elementwise import kind_of
from profiler.model import QK_NORM

if TYPE_CHECKING:
    from profiler.deployment import Deployment
    from profiler.model import Elementwise, Linear


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
    kind
        The kind of op whose efficiency applies, one of :data:`profiler.elementwise.KINDS`.
    bytes_per_row
        What it moves for each token (or sampled token).
    """

    kind: str
    bytes_per_row: float
    count: int


def layer_matrices(deployment: Deployment, stage: int) -> list[Matrix]:
    """Return the matrices of the stage's layers: query, key and value as one, gate and up as one."""
    linears = deployment.spec.linears(deployment.tensor_parallel_size)
    return [Matrix(linear=linear, count=deployment.stage_layers[stage]) for linear in linears]


def layer_sweeps(deployment: Deployment, stage: int) -> list[Sweep]:
    """Return the elementwise ops of the stage: those of :meth:`Model.elementwise`, fused as engines fuse them.

    Each addition runs in one launch with the norm after it, which then need not read the sum again; what is
    left of either runs alone. The first stage gathers embeddings, the last ends with a norm.
    """
    model, layers = deployment.spec, deployment.stage_layers[stage]
    ops = model.elementwise(deployment.tensor_parallel_size)
    adds = [op for op in ops if op.kind == "add"]
    norms = [op for op in ops if kind_of(op.kind) == "norm" and op.kind != QK_NORM]
    fused = [_fused(norm, add, model.hidden_bytes, layers) for norm, add in zip(norms, adds, strict=False)]
    paired = norms[: len(fused)] + adds[: len(fused)]
    alone = list((Counter(ops) - Counter(paired)).elements())
    sweeps = fused + [Sweep(kind=kind_of(op.kind), bytes_per_row=op.size_bytes, count=layers) for op in alone]
    if stage == 0:
        sweeps.append(Sweep(kind="embedding", bytes_per_row=2.0 * model.hidden_bytes, count=1))
    if stage == deployment.pipeline_parallel_size - 1:
        sweeps.append(_fused(norms[0], adds[0], model.hidden_bytes, 1))
    return sweeps


def _fused(norm: Elementwise, add: Elementwise, hidden_bytes: int, count: int) -> Sweep:
    return Sweep(kind="fused_norm", bytes_per_row=norm.size_bytes + add.size_bytes - hidden_bytes, count=count)


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
    return Sweep(kind="sampler", bytes_per_row=deployment.spec.vocab * deployment.spec.dtype_bytes, count=1)


def kernels(deployment: Deployment, stage: int = 0) -> int:
    """Return the launches of an iteration on a stage: matrices, elementwise work, attention, communication."""
    matrices = sum(matrix.count for matrix in layer_matrices(deployment, stage))
    sweeps = sum(sweep.count for sweep in layer_sweeps(deployment, stage))
    return matrices + sweeps + deployment.stage_layers[stage] + layer_all_reduces(deployment, stage)
