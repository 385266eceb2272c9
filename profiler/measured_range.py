"""What an op was measured on: the least and the most of each quantity that its time depends on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from profiler import communication, decode_attention, elementwise, gemm, mixed_attention, prefill_attention

Shape = Mapping[str, npt.NDArray[Any]]
OfShape = Callable[[Shape], npt.NDArray[Any]]


def _column(name: str) -> OfShape:
    return lambda shape: shape[name]


_HEADS: Mapping[str, OfShape] = {
    **{name: _column(name) for name in ("heads", "kv_heads", "head_dim", "element_bytes")},
    "heads_per_kv_head": lambda shape: shape["heads"] / shape["kv_heads"],
}
QUANTITIES: Mapping[str, Mapping[str, OfShape]] = {
    gemm.OP: {
        "tokens": _column("m"),
        "weights": lambda shape: shape["n"] * shape["k"],
        "element_bytes": _column("element_bytes"),
    },
    prefill_attention.OP: {
        "query_tokens": _column("query_tokens"),
        "past_tokens": _column("past_tokens"),
        **_HEADS,
    },
    decode_attention.OP: {
        "decodes": _column("sequences"),
        "decode_context": lambda shape: shape["past_tokens"] + 1,
        "decode_context_sum": lambda shape: shape["sequences"] * (shape["past_tokens"] + 1),
        **_HEADS,
    },
    mixed_attention.OP: {
        **{name: _column(name) for name in ("query_tokens", "past_tokens", "decodes", "decode_context")},
        **_HEADS,
    },
    elementwise.OP: {"size_bytes": _column("size_bytes")},
    communication.OP: {"gpus": _column("gpus"), "size_bytes": _column("size_bytes")},
    communication.SEND: {"size_bytes": _column("size_bytes")},
}
"""By op, what is noted of its rows. Of a matrix it is the number of its weights: ``n`` or ``k`` alone decide little."""


@dataclass(frozen=True)
class MeasuredRange:
    """The span of the rows that an op was fitted to: all within is interpolated, all beyond extrapolated.

    It is a box: of two quantities that lie within their limits the pair may still not have been measured.

    Attributes
    ----------
    limits
        Quantity, a key of :data:`QUANTITIES` of the op -> its least and most.
    """

    limits: Mapping[str, tuple[float, float]]

    @staticmethod
    def of(op: str, shape: Shape) -> MeasuredRange:
        """Return the range of the rows of ``shape``, of which there is at least one."""
        columns = {name: np.asarray(value(shape), dtype=np.float64) for name, value in QUANTITIES[op].items()}
        return MeasuredRange({name: (float(each.min()), float(each.max())) for name, each in columns.items()})

    def to_json(self) -> dict[str, list[float]]:
        """Return what :meth:`from_json` takes."""
        return {name: [_plain(least), _plain(most)] for name, (least, most) in self.limits.items()}

    @staticmethod
    def from_json(document: Mapping[str, Any] | None) -> MeasuredRange | None:
        """Return the range that :meth:`to_json` described; None for None."""
        if document is None:
            return None
        return MeasuredRange({name: (float(least), float(most)) for name, (least, most) in document.items()})


def _plain(value: float) -> float:
    return int(value) if value == int(value) else value
