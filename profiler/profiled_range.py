"""Whether a batch lies within what a cost model's ops were measured on, and where it leaves it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import TYPE_CHECKING

from profiler.aggregates import Aggregates, BatchLike, decode_tokens_read
from profiler.communication import OP as ALL_REDUCE
from profiler.correction_grid import Heads
from profiler.decode_attention import OP as DECODE
from profiler.gemm import OP as GEMM
from profiler.layer import head_matrix, layer_matrices
from profiler.mixed_attention import OP as MIXED
from profiler.prefill_attention import OP as PREFILL

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
Span = tuple[float, float]
OfBatch = Callable[[BatchLike], Span | None]


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
        Batch -> the least and the most that it asks for; None where it does not run the op.
    """

    op: str
    quantity: str
    least: float
    most: float
    of: OfBatch

    def left_at(self, batch: BatchLike) -> float | None:
        """Return the value with which ``batch`` leaves the range, None where it does not."""
        span = self.of(batch)
        if span is None or (span[0] >= self.least and span[1] <= self.most):
            return None
        return span[1] if span[1] > self.most else span[0]

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
        self._box = _Box(self.limits)

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
                    by_batch.append(limit(of=of_batch[quantity]))
                elif quantity in of_shape:
                    by_shape.append(limit(of=_runs(op, of_shape[quantity])))
        broken = [limit for limit in by_shape if limit.left_at(SMALLEST) is not None]
        return ProfiledRange(device, (*by_batch, *broken), unmeasured)

    def outside(self, batch: BatchLike) -> str | None:
        """Say where ``batch`` leaves the range, e.g. "decode attention: decode context 131,072, beyond the 65,536
        measured"; None where it does not."""
        found = self.leaves(batch)
        return None if found is None else self.limits[found[0]].told(found[1])

    def leaves(self, batch: BatchLike) -> tuple[int, float] | None:
        """Return the first of :attr:`limits` that ``batch`` leaves, by index, and at which value; None inside."""
        if self._box.holds(batch):
            return None
        for index, limit in enumerate(self.limits):
            value = limit.left_at(batch)
            if value is not None:
                return index, value
        return None

    def holds_decodes(self, most: int, longest: int) -> bool:
        """Whether every batch of up to ``most`` decodes alone with contexts of up to ``longest`` tokens is inside."""
        largest = Aggregates.of(decodes=most, context=longest)
        return self._box.least_context <= 1 and self._box.holds(largest)

    def refusal(self) -> str | None:
        """Say why no batch can be within a profile of this device, None where some can."""
        for op, source in self.unmeasured.items():
            name = op.replace("_", " ")
            if source:
                return f"{name} was not measured on {self._device}: its times are taken over from {source}"
            return f"the fit does not say what {name} was measured on; fit it again"
        return None


class _Box:
    """The tightest of all limits: a batch within is inside, one beyond may be.

    Where a limit is on something else than tokens, none is within.
    """

    __slots__ = ("chunk", "context", "context_sum", "decodes", "least_chunk", "least_context", "past", "tokens")

    def __init__(self, limits: Sequence[Limit]) -> None:
        def most(name: str) -> float:
            return min((limit.most for limit in limits if limit.quantity == name), default=inf)

        def least(name: str) -> float:
            return max((limit.least for limit in limits if limit.quantity == name), default=0.0)

        plain = all(limit.quantity in COUNTED for limit in limits) and least("tokens") <= 1
        self.tokens = most("tokens") if plain else -1.0
        several = any(least(name) > 1 for name in ("decodes", "decode_context", "decode_context_sum"))
        self.decodes = -1.0 if several else min(most("decodes"), self.tokens)
        self.context_sum, self.context = most("decode_context_sum"), most("decode_context")
        self.least_context, self.least_chunk = least("decode_context"), least("query_tokens")
        self.chunk = most("query_tokens") if least("past_tokens") == 0 else -1.0
        self.past = most("past_tokens")

    def holds(self, batch: BatchLike) -> bool:
        """Whether ``batch`` lies within."""
        decodes, read = batch.decodes, batch.decode_context_sum
        if decodes > self.decodes or batch.decode_context_max > self.context:
            return False
        if read > self.context_sum or read < self.least_context * decodes:
            return False
        chunks = batch.chunks
        if not chunks:
            return True
        prefill = batch.prefill_tokens
        if prefill > self.chunk or prefill + decodes > self.tokens:
            return False
        past, least = self.past, self.least_chunk
        for chunk in chunks:  # noqa: SIM110 (a generator takes twice as long)
            if chunk.past > past or chunk.tokens < least:
                return False
        return True


def _limits(measured: MeasuredRange, token_bytes: int) -> Iterator[tuple[str, Span]]:
    """Yield the limits of an op by quantity, messages counted in tokens."""
    for quantity, (least, most) in measured.limits.items():
        if quantity == "size_bytes":
            yield "tokens", (least / token_bytes, most // token_bytes)
        else:
            yield quantity, (least, most)


def _runs(op: str, span: Span) -> OfBatch:
    """Return ``span`` for batches that run ``op``."""
    if op == PREFILL:
        return lambda batch: span if batch.chunks else None
    if op == DECODE:
        return lambda batch: span if batch.decodes else None
    if op == MIXED:
        return lambda batch: span if batch.chunks and batch.decodes else None
    return lambda _: span


def _asked(
    deployment: Deployment, *, one_launch: bool
) -> Iterator[tuple[str, Mapping[str, OfBatch], Mapping[str, Span]]]:
    """Yield each op with what batches ask of it by quantity, and what the deployment's shapes do."""
    model, ways = deployment.spec, deployment.tensor_parallel_size
    stages = range(deployment.pipeline_parallel_size)
    matrices = [matrix.linear for stage in stages for matrix in layer_matrices(deployment, stage)]
    weights = [float(each.n * each.k) for each in (*matrices, head_matrix(deployment).linear)]
    yield (
        GEMM,
        {"tokens": _tokens},
        {"weights": (min(weights), max(weights)), "element_bytes": _twice(model.dtype_bytes)},
    )
    heads = {name: _twice(value) for name, value in _heads(deployment).items()}
    yield PREFILL, _chunks(model.sliding_window), heads
    yield DECODE, _decodes(model.sliding_window), heads
    if one_launch:
        yield MIXED, _mix(), heads
    if ways > 1:
        yield ALL_REDUCE, {"tokens": _tokens}, {"gpus": _twice(ways)}


def _heads(deployment: Deployment) -> dict[str, float]:
    heads = Heads(deployment)
    return {
        "heads": heads.heads,
        "kv_heads": heads.kv_heads,
        "head_dim": heads.width,
        "heads_per_kv_head": heads.heads / heads.kv_heads,
        "element_bytes": heads.element_bytes,
    }


def _twice(value: float) -> Span:
    return value, value


def _tokens(batch: BatchLike) -> Span:
    return _twice(batch.prefill_tokens + batch.decodes)


def _chunks(window: int | None) -> dict[str, OfBatch]:
    def tokens(batch: BatchLike) -> Span | None:
        return _span([chunk.tokens for chunk in batch.chunks])

    def past(batch: BatchLike) -> Span | None:
        pasts = [chunk.past for chunk in batch.chunks]
        return _span(pasts if window is None else [min(each, window) for each in pasts])

    return {"query_tokens": tokens, "past_tokens": past}


def _span(values: list[int]) -> Span | None:
    if len(values) == 1:
        return values[0], values[0]
    return (min(values), max(values)) if values else None


def _decodes(window: int | None) -> dict[str, OfBatch]:
    def context(batch: BatchLike) -> Span | None:
        if not batch.decodes:
            return None
        longest = batch.decode_context_max if window is None else min(batch.decode_context_max, window)
        return decode_tokens_read(batch, window) / batch.decodes, longest

    def read(batch: BatchLike) -> Span | None:
        return _twice(decode_tokens_read(batch, window)) if batch.decodes else None

    def count(batch: BatchLike) -> Span | None:
        return _twice(batch.decodes) if batch.decodes else None

    return {"decodes": count, "decode_context": context, "decode_context_sum": read}


def _mix() -> dict[str, OfBatch]:
    """Return what one launch over chunks and decodes is asked for: chunks count as one, contexts by their mean."""

    def only(value: Callable[[BatchLike], float]) -> OfBatch:
        return lambda batch: _twice(value(batch)) if batch.chunks and batch.decodes else None

    return {
        "query_tokens": only(lambda batch: batch.prefill_tokens),
        "past_tokens": only(lambda batch: max(chunk.past for chunk in batch.chunks)),
        "decodes": only(lambda batch: batch.decodes),
        "decode_context": only(lambda batch: batch.decode_context_sum / batch.decodes),
    }
