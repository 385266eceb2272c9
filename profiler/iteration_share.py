"""How much of an iteration's time one call of an op stands for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from profiler.iteration import OP as ITERATION
from profiler.kernels import OpShape
from profiler.tile import Floats

if TYPE_CHECKING:
    from profiler.model import Model
    from profiler.surrogate import Surrogate

LINEAR = ("gemm", "elementwise")
ONCE = ("lm_head", "embedding", "sampler")
"""Kinds that run once an iteration, not once a layer."""
LADDER = tuple(2**power for power in range(18))


class IterationShare:
    """Shares of iterations of a model, by the times that surrogates predict.

    Parameters
    ----------
    model, tp
        What runs, on each of ``tp`` GPUs.
    fitted
        A surrogate for each group of :func:`profiler.candidates.grouped`; ops without one count nothing.
    """

    def __init__(self, model: Model, tp: int, fitted: Mapping[tuple[str, ...], Surrogate]) -> None:
        self._layers = model.layers
        total = np.full(len(LADDER), 1e-12)
        for group, shapes in _linear(model, tp):
            if group in fitted:
                total += model.layers * fitted[group].predict(shapes).time_s
        self._log_total: Floats = np.log(total)

    def of(self, shape: OpShape, time_s: float) -> float:
        """Return the share that all calls of ``shape``, ``time_s`` each, have in an iteration with its tokens."""
        if shape.op == ITERATION:
            return 1.0
        tokens = shape.m or shape.sequences * shape.query_tokens + shape.decodes
        linear_s = float(np.exp(np.interp(np.log(max(tokens, 1)), np.log(LADDER), self._log_total)))
        calls_s = time_s * (1 if shape.kind in ONCE else self._layers)
        if shape.op in LINEAR and shape.kind not in ONCE:
            return min(1.0, calls_s / linear_s)
        return calls_s / (calls_s + linear_s)


def _linear(model: Model, tp: int) -> list[tuple[tuple[str, ...], list[OpShape]]]:
    """Return the products and sweeps of one layer, each at the token counts of the ladder."""
    found: list[tuple[tuple[str, ...], list[OpShape]]] = []
    for kind, n, k in model.linears(tp):
        found.append((("gemm",), [OpShape(op="gemm", kind=kind, m=tokens, n=n, k=k) for tokens in LADDER]))
    for kind, elements, size_bytes in model.elementwise(tp):
        one = OpShape(op="elementwise", kind=kind, n=elements)
        shapes = [replace(one, m=tokens, size_bytes=tokens * size_bytes) for tokens in LADDER]
        found.append((("elementwise", kind), shapes))
    return found
