"""Whether batches lie within what a cost model's ops were measured on, and where they leave it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf, nan
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from profiler.aggregates import Aggregates, BatchLike, Columns, columns_of, decode_tokens_read
from profiler.communication import OP as ALL_REDUCE
from profiler.correction_grid import Heads
from profiler.decode_attention import OP as DECODE
from profiler.gemm import OP as GEMM
from profiler.layer import head_matrix, layer_matrices
from profiler.mixed_attention import OP as MIXED
from profiler.prefill_attention import OP as PREFILL
from profiler.tile import Floats

if TYPE_CHECKING:
    from profiler.deployment import Deployment
    from profiler.fitted import FittedDevice
    from profiler.measured_range import MeasuredRange

TILE = 128
"""Tokens of a batch and of a chunk, which kernels pad to tiles about as long: less than the least measured counts as
measured where that is a tile or less."""
TITLES: Mapping[str, str] = {
    "tokens": "tokens of a batch",
    "query_tokens": "tokens of a chunk",
    "past_tokens": "past tokens of a chunk",
    "decodes": "decodes",
    "decode_context": "decode context",
    "decode_context_sum": "KV tokens of the decodes",
    "gpus": "GPUs of an all-reduce",
    "nodes": "nodes of an all-reduce",
    "weights": "weights of a matrix",
    "element_bytes": "bytes of a number",
    "heads": "attention heads",
    "kv_heads": "KV heads",
    "head_dim": "width of a head",
    "heads_per_kv_head": "heads that share a KV head",
}
PADDED = ("tokens", "query_tokens")
COUNTED = (*PADDED, "past_tokens", "decodes", "decode_context", "decode_context_sum")
FEW = 16
"""Less than the least measured counts as measured where that is at most this, of what is not padded."""
SMALLEST = Aggregates.of(1, decodes=1, context=1)
"""Runs every op once."""
RUNS: Mapping[str, Callable[[Columns], npt.NDArray[np.bool_]]] = {
    GEMM: lambda of: np.full(len(of["decodes"]), True),
    PREFILL: lambda of: of["chunks"] > 0,
    DECODE: lambda of: of["decodes"] > 0,
    MIXED: lambda of: (of["chunks"] > 0) & (of["decodes"] > 0),
    ALL_REDUCE: lambda of: np.full(len(of["decodes"]), True),
}
"""Op -> the batches that run it."""
Span = tuple[float, float]
Asked = Callable[[Columns], tuple[npt.ArrayLike, npt.ArrayLike]]
"""Returns the least and the most of a quantity that batches which run an op ask for; of others it may be anything."""


@dataclass(frozen=True, kw_only=True)
class Limit:
    """One quantity of one op, and what was measured of it.

    Attributes
    ----------
    op, quantity
        As in :data:`profiler.measured_range.QUANTITIES`.
    least, most
        Values that count as measured.
    of
        Batches -> the least and the most that each asks for; inf and -inf where it does not run the op.
    """

    op: str
    quantity: str
    least: float
    most: float
    of: Callable[[Columns], tuple[Floats, Floats]]

    def left(self, columns: Columns) -> tuple[npt.NDArray[np.int64], Floats]:
        """Return the rows of the batches that leave the range, and the values with which they do."""
        least, most = self.of(columns)
        rows = np.flatnonzero((most > self.most) | (least < self.least))
        return rows, np.where(most[rows] > self.most, most[rows], least[rows])

    @property
    def title(self) -> str:
        """The quantity and its op, for people."""
        return f"{self.op.replace('_', ' ')}: {TITLES[self.quantity]}"

    def told(self, value: float) -> str:
        """Say how ``value`` lies outside."""
        side, limit = ("beyond", self.most) if value > self.most else ("below", self.least)
        return f"{self.title} {value:,.0f}, {side} the {limit:,.0f} measured"


class ProfiledRange:
    """The range that the ops of a deployment's cost model were measured on.

    It holds for matrices, attention and all-reduces. Elementwise work and sends are bytes at a rate, which holds at
    any size, and are not looked at.

    Parameters
    ----------
    device
        Preset name of the device that is asked about.

    Attributes
    ----------
    limits
        What a batch is held against: quantities of its own first, then shapes of the deployment that were not
        measured, with which every batch that runs the op lies outside.
    unmeasured
        Ops that the deployment runs and nobody measured on its device -> the device whose measurements stand in, and
        which batches are then held against; "" where the fit does not say what it was measured on.
    """

    def __init__(self, device: str, limits: Sequence[Limit] = (), unmeasured: Mapping[str, str] | None = None) -> None:
        self.limits, self.unmeasured = tuple(limits), dict(unmeasured or {})
        self._device = device

    @staticmethod
    def of(deployment: Deployment, fitted: FittedDevice, *, one_launch: bool = False) -> ProfiledRange:
        """Return the range of a deployment's ops; ``one_launch`` if chunks and decodes attend together as measured."""
        device, unmeasured = deployment.hardware.name, dict[str, str]()
        by_batch, by_shape = list[Limit](), list[Limit]()
        for op, of_batch, of_shape in _asked(deployment, one_launch=one_launch):
            known = fitted.ops[op].measured if op in fitted.ops else None
            source = "" if known is None else fitted.source_of(op)
            if source != device:
                unmeasured[op] = source
            for quantity, (least, most) in () if known is None else _limits(known, deployment.spec.hidden_bytes):
                low = 0.0 if quantity in COUNTED and least <= (TILE if quantity in PADDED else FEW) else least
                limit = partial(Limit, op=op, quantity=quantity, least=low, most=most)
                if quantity in of_batch:
                    by_batch.append(limit(of=_where_run(op, of_batch[quantity])))
                elif quantity in of_shape:
                    by_shape.append(limit(of=_where_run(op, of_shape[quantity])))
        smallest = columns_of(SMALLEST)
        broken = [limit for limit in by_shape if limit.left(smallest)[0].size]
        return ProfiledRange(device, (*by_batch, *broken), unmeasured)

    def outside(self, batch: BatchLike) -> str | None:
        """Say where ``batch`` leaves the range, e.g. "decode attention: decode context 131,072, beyond the 65,536
        measured"; None where it does not."""
        (index,), (value,) = self.leaves(columns_of(batch))
        return None if index < 0 else self.limits[index].told(float(value))

    def leaves(self, columns: Columns) -> tuple[npt.NDArray[np.int64], Floats]:
        """Return which of :attr:`limits` batches leave, and with which value.

        Parameters
        ----------
        columns
            The batches, each column [batches], see :func:`profiler.aggregates.columns_of`.

        Returns
        -------
        index
            The first limit that each batch leaves, counted from 0; -1 inside. int64 [batches].
        value
            What it asks for there, NaN inside. float64 [batches].
        """
        batches = len(columns["decodes"])
        index, value = np.full(batches, -1), np.full(batches, nan)
        for number, limit in reversed([*enumerate(self.limits)]):
            rows, values = limit.left(columns)
            index[rows], value[rows] = number, values
        return index, value

    def refusal(self) -> str | None:
        """Say why no batch can be within a profile of this device, None where some can."""
        for op, source in self.unmeasured.items():
            name = op.replace("_", " ")
            if source:
                return f"{name} was not measured on {self._device}: its times are taken over from {source}"
            return f"the fit does not say what {name} was measured on; fit it again"
        return None


def _limits(measured: MeasuredRange, token_bytes: int) -> Iterator[tuple[str, Span]]:
    """Yield the limits of an op by quantity, messages counted in tokens; no profile holds all-reduces between nodes."""
    for quantity, (least, most) in measured.limits.items():
        if quantity == "size_bytes":
            yield "tokens", (least / token_bytes, most // token_bytes)
        else:
            yield quantity, (least, most)
    if "gpus" in measured.limits:
        yield "nodes", (1.0, 1.0)


def _where_run(op: str, asked: Asked) -> Callable[[Columns], tuple[Floats, Floats]]:
    """Return what batches that run ``op`` ask for, of others nothing: inf at least, -inf at most."""

    def of(columns: Columns) -> tuple[Floats, Floats]:
        runs, (least, most) = RUNS[op](columns), asked(columns)
        return np.where(runs, least, inf), np.where(runs, most, -inf)

    return of


def _asked(
    deployment: Deployment, *, one_launch: bool
) -> Iterator[tuple[str, Mapping[str, Asked], Mapping[str, Asked]]]:
    """Yield each op with what batches ask of it by quantity, and what the deployment's shapes do."""
    model, ways = deployment.spec, deployment.tensor_parallel_size
    stages = range(deployment.pipeline_parallel_size)
    matrices = [matrix.linear for stage in stages for matrix in layer_matrices(deployment, stage)]
    weights = [float(each.n * each.k) for each in (*matrices, head_matrix(deployment).linear)]
    yield (
        GEMM,
        {"tokens": _tokens},
        {"weights": lambda _: (min(weights), max(weights)), "element_bytes": _always(model.dtype_bytes)},
    )
    heads = {name: _always(value) for name, value in _heads(deployment).items()}
    yield PREFILL, _chunks(model.sliding_window), heads
    yield DECODE, _decodes(model.sliding_window), heads
    if one_launch:
        yield MIXED, _mix(), heads
    if ways > 1:
        nodes = -(-ways // deployment.gpus_per_node)
        yield ALL_REDUCE, {"tokens": _tokens}, {"gpus": _always(ways), "nodes": _always(nodes)}


def _heads(deployment: Deployment) -> dict[str, float]:
    heads = Heads(deployment)
    return {
        "heads": heads.heads,
        "kv_heads": heads.kv_heads,
        "head_dim": heads.width,
        "heads_per_kv_head": heads.heads / heads.kv_heads,
        "element_bytes": heads.element_bytes,
    }


def _always(value: float) -> Asked:
    return lambda _: (value, value)


def _each(value: Callable[[Columns], npt.ArrayLike]) -> Asked:
    """Return one value of each batch as the least and the most that it asks for."""

    def asked(columns: Columns) -> tuple[npt.ArrayLike, npt.ArrayLike]:
        values = value(columns)
        return values, values

    return asked


_tokens = _each(lambda of: of["prefill_tokens"] + of["decodes"])
_count = _each(lambda of: of["decodes"])


def _chunks(window: int | None) -> dict[str, Asked]:
    reach = inf if window is None else window
    return {
        "query_tokens": lambda of: (of["chunk_least"], of["chunk_most"]),
        "past_tokens": lambda of: (np.minimum(of["past_least"], reach), np.minimum(of["past_most"], reach)),
    }


def _decodes(window: int | None) -> dict[str, Asked]:
    reach = inf if window is None else window
    return {
        "decodes": _count,
        "decode_context": lambda of: (_mean(of, window), np.minimum(of["decode_context_max"], reach)),
        "decode_context_sum": _each(lambda of: decode_tokens_read(of, window)),
    }


def _mean(columns: Columns, window: int | None = None) -> Floats:
    """Return the mean context of the decodes, 0 where there is none."""
    return decode_tokens_read(columns, window) / np.maximum(columns["decodes"], 1)


def _mix() -> dict[str, Asked]:
    """Return what one launch over chunks and decodes is asked for: chunks count as one, contexts by their mean."""
    return {
        "query_tokens": _each(lambda of: of["prefill_tokens"]),
        "past_tokens": _each(lambda of: of["past_most"]),
        "decodes": _count,
        "decode_context": _each(_mean),
    }
