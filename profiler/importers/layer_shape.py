"""The shape of a layer that a table only names: a matrix product or the bytes of an elementwise op."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy.typing as npt

from profiler.model import DTYPE_BYTES, Linear, Model
from profiler.profile import ops_table

if TYPE_CHECKING:
    from typing import Any

    import pyarrow as pa


@dataclass(frozen=True, kw_only=True)
class LayerShape:
    """What a layer does for a token: a product with [k, n] weights, or ``elements`` written, ``size`` moved.

    ``elements`` and ``size`` (read and written) are in elements; ``n`` and ``k`` are 0 for an elementwise op.
    """

    n: int = 0
    k: int = 0
    elements: int = 0
    size: int = 0

    @staticmethod
    def of(model: Model, kind: str, tp: int) -> LayerShape:
        """Return the shape of the layer ``kind`` of ``model`` on each of ``tp`` GPUs.

        Besides the kinds of :meth:`Model.linears` and :meth:`Model.elementwise`: parts of the fused products
        (``q_proj``, ``gate_proj``), ``lm_head``, ``embedding``, ``sampler``, ``final_layernorm``, and
        ``fused_add_norm`` and ``fused_add_final_norm``, which add first and write the sum as well.
        """
        linear = _linears(model, tp).get(kind)
        if linear is not None:
            return LayerShape(n=linear.n, k=linear.k)
        ops = {op.kind: op for op in model.elementwise(tp)}
        rows = -(-model.vocab // tp)
        moved = {
            "embedding": (model.hidden, 2 * model.hidden),
            "fused_add_norm": (model.hidden, 4 * model.hidden),
            "fused_add_final_norm": (model.hidden, 4 * model.hidden),
            "sampler": (model.vocab, 2 * rows),
        }
        if kind in moved:
            return LayerShape(elements=moved[kind][0], size=moved[kind][1])
        op = ops["input_layernorm" if kind == "final_layernorm" else kind]
        return LayerShape(elements=op.elements, size=op.size_bytes // model.dtype_bytes)


def _linears(model: Model, tp: int) -> dict[str, Linear]:
    ways = [replace(model, fused=fused).linears(tp) for fused in (False, True)]
    return {linear.kind: linear for linears in ways for linear in (*linears, model.head_linear(tp))}


def layer_table(
    shape: LayerShape,
    kind: str,
    dtype: str,
    tokens: npt.NDArray[Any],
    time_s: npt.NDArray[Any],
    spread_s: npt.NDArray[Any] | float = float("nan"),
) -> pa.Table:
    """Return rows of one layer over [rows] ``tokens``."""
    if shape.k:
        return ops_table(
            len(tokens),
            op="gemm",
            kind=kind,
            dtype=dtype,
            m=tokens,
            n=shape.n,
            k=shape.k,
            time_s=time_s,
            spread_s=spread_s,
        )
    return ops_table(
        len(tokens),
        op="elementwise",
        kind=kind,
        dtype=dtype,
        m=tokens,
        n=shape.elements,
        size_bytes=tokens * (shape.size * DTYPE_BYTES[dtype]),
        time_s=time_s,
        spread_s=spread_s,
    )
