"""What one pipeline stage costs, tabulated when a cost model is loaded."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from profiler.layer import (
    Matrix,
    Sweep,
    head_matrix,
    layer_all_reduces,
    layer_matrices,
    layer_sweeps,
    sampler_sweep,
)
from profiler.tile import Floats

if TYPE_CHECKING:
    from profiler.deployment import Deployment
    from profiler.engine_fit import EngineFit
    from profiler.fitted import FittedDevice, FittedOp


@dataclass(frozen=True, kw_only=True)
class StageTables:
    """Seconds by tokens of a batch (index), for one stage; plain lists, since they are read one value at a
    time.

    Attributes
    ----------
    linear_s
        All matrices and elementwise ops of the stage's layers, with embedding and last norm where they run.
    spread_s
        Root of the sum of squares of their parts: what is uncertain if the parts err independently.
    communication_s
        All-reduces of tensor parallelism.
    head_s, gather_s
        By sampled tokens: the head's matrix and sampling, and gathering the logits of all GPUs. Empty before
        the last stage.
    """

    linear_s: list[float]
    spread_s: list[float]
    communication_s: list[float]
    head_s: list[float] = field(default_factory=list)
    gather_s: list[float] = field(default_factory=list)


class StageOps:
    """Computes what :class:`StageTables` holds."""

    def __init__(self, deployment: Deployment, fitted: FittedDevice, stage: int, engine: EngineFit) -> None:
        self._deployment = deployment
        self._fitted = fitted
        self._engine = engine
        self._device = deployment.hardware
        self._stage = stage

    def tables(self, most_tokens: int, most_outputs: int) -> StageTables:
        """Return the tables for 0 .. ``most_tokens`` tokens and 0 .. ``most_outputs`` sampled tokens."""
        tokens, outputs = np.arange(most_tokens + 1.0), np.arange(most_outputs + 1.0)
        parts = self._padded(self.linear_parts(tokens))
        last = self._stage == self._deployment.pipeline_parallel_size - 1
        return StageTables(
            linear_s=np.sum(parts, axis=0).tolist(),
            spread_s=np.sqrt(np.sum(np.square(parts), axis=0)).tolist(),
            communication_s=self.communication(tokens).tolist(),
            head_s=self.head(outputs).tolist() if last else [],
            gather_s=self.gather(outputs).tolist() if last else [],
        )

    def _padded(self, parts: list[Floats]) -> list[Floats]:
        """Return what runs by tokens where each batch is padded to the next captured CUDA graph."""
        sizes = np.asarray(self._deployment.cudagraph_capture_sizes)
        if not len(sizes):
            return parts
        runs = np.arange(len(parts[0]))
        inside = (runs > 0) & (runs <= sizes[-1])
        runs[inside] = sizes[np.searchsorted(sizes, runs[inside])]
        return [part[np.minimum(runs, len(part) - 1)] for part in parts]

    def linear_parts(self, tokens: Floats) -> list[Floats]:
        """Return the seconds of each matrix, of all elementwise ops and what the engine adds, [tokens] each."""
        factors, matrices = self._engine.factors, layer_matrices(self._deployment, self._stage)
        parts = [factors["matrices"] * matrix.count * self.matrix(matrix, tokens) for matrix in matrices]
        parts.append(factors["elementwise"] * self.sweeps(layer_sweeps(self._deployment, self._stage), tokens))
        return [*parts, self._engine.token_s * tokens]

    def communication(self, tokens: Floats) -> Floats:
        """Return the seconds of the stage's all-reduces, [tokens]."""
        count = layer_all_reduces(self._deployment, self._stage)
        size_bytes = tokens * self._deployment.spec.hidden_bytes
        return count * self._all_reduce(size_bytes) if count else np.zeros_like(tokens)

    def head(self, outputs: Floats) -> Floats:
        """Return the seconds of the head's matrix and of sampling, [outputs]."""
        matrix_s = self.matrix(head_matrix(self._deployment), outputs)
        return self._engine.factors["head"] * (matrix_s + self.sweeps([sampler_sweep(self._deployment)], outputs))

    def gather(self, outputs: Floats) -> Floats:
        """Return the seconds of gathering the logits: it moves half of what an all-reduce of them would."""
        if self._deployment.tensor_parallel_size == 1:
            return np.zeros_like(outputs)
        size_bytes = outputs * self._deployment.spec.vocab * self._deployment.spec.dtype_bytes
        return self._all_reduce(size_bytes / 2)

    def matrix(self, matrix: Matrix, tokens: Floats) -> Floats:
        """Return the seconds of one product [tokens, k] x [k, n]; none for no tokens."""
        op = self._fitted.ops["gemm"]
        shape = gemm_shape(np.maximum(tokens, 1.0), matrix, self._deployment.spec.dtype_bytes)
        seconds = predict_along(op, shape, self._device, tokens)
        return np.where(tokens > 0, seconds, 0.0)

    def sweeps(self, sweeps: list[Sweep], rows: Floats) -> Floats:
        """Return the seconds of elementwise ops over ``rows`` rows, added up; none for no rows."""
        op, total = self._fitted.ops["elementwise"], np.zeros_like(rows)
        for sweep in sweeps:
            shape = {"kind": np.full(len(rows), sweep.kind), "size_bytes": rows * sweep.bytes_per_row}
            total += sweep.count * op.predict(shape, self._device)
        return np.where(rows > 0, total, 0.0)

    def _all_reduce(self, size_bytes: Floats) -> Floats:
        op = self._fitted.ops["all_reduce"]
        counts = {"gpus": self._deployment.tensor_parallel_size, "gpus_per_node": self._deployment.gpus_per_node}
        shape = {name: np.full(len(size_bytes), float(count)) for name, count in counts.items()}
        seconds = op.predict({**shape, "size_bytes": np.maximum(size_bytes, 1.0)}, self._device)
        return np.where(size_bytes > 0, seconds, 0.0)


def gemm_shape(tokens: Floats, matrix: Matrix, element_bytes: int) -> dict[str, Any]:
    """Return the shape columns of ``tokens`` rows through ``matrix``."""
    n, k = np.full(len(tokens), float(matrix.linear.n)), np.full(len(tokens), float(matrix.linear.k))
    return {"m": tokens, "n": n, "k": k, "element_bytes": np.full(len(tokens), float(element_bytes))}


def predict_along(op: FittedOp, shape: dict[str, Any], device: Any, tokens: Floats) -> Floats:
    """Return predictions along a run of token counts: physics at each, its correction on :func:`coarse` ones.

    Between two of them the correction is interpolated; they come in pairs around tile edges, so that a step
    stays a step.
    """
    from profiler.op import OPS

    seconds = OPS[op.name].physics(op.coefficients, shape, device)
    grid = coarse(tokens)
    rows = np.searchsorted(tokens, grid)
    correction = op.correction({key: values[rows] for key, values in shape.items()}, device)
    return np.asarray(seconds * np.exp(np.interp(tokens, grid, correction)), dtype=np.float64)


def coarse(tokens: Floats) -> Floats:
    """Return those of ascending ``tokens`` at which corrections are computed: all up to 16, then pairs."""
    if len(tokens) < 64:
        return tokens
    wholes = tokens[tokens == np.rint(tokens)]
    step = np.where(wholes <= 512, 16, np.where(wholes <= 2048, 64, 256))
    kept = (wholes <= 16) | (wholes % step <= 1)
    return np.unique(np.concatenate([tokens[[0, -1]], wholes[kept]]))
