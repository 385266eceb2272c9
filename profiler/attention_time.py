"""Attention of one layer from a batch's aggregates, one value at a time and without numpy in the loop."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from math import log2
from typing import TYPE_CHECKING, Any

import numpy as np

from profiler.op import PREFILL_ATTENTION
from profiler.prefill_attention import QUERY_TILE
from profiler.tile import Floats

if TYPE_CHECKING:
    from profiler.deployment import Deployment
    from profiler.fitted import FittedOp

PER_OCTAVE = 3
OCTAVES = 18
_ROWS = (*range(1, 8), *(step * 2**octave for octave in range(1, 16) for step in range(4, 8)))


class _Corrections:
    """exp(residual) on a grid, [rows][thirds of a doubling of the context], read by bilinear interpolation."""

    def __init__(self, rows: list[int], factors: Floats) -> None:
        top = rows[-1]
        below = np.searchsorted(rows, np.arange(top + 1), side="right") - 1
        below = np.clip(below, 0, len(rows) - 2)
        low = np.asarray(rows, float)[below]
        high = np.asarray(rows, float)[np.minimum(below + 1, len(rows) - 1)]
        self._top = top
        self._below: list[int] = below.tolist()
        self._share: list[float] = np.clip((np.arange(top + 1) - low) / np.maximum(high - low, 1), 0, 1).tolist()
        self._factors: list[list[float]] = factors.tolist()
        self._last = factors.shape[1] - 2

    def at(self, row: int, context: float) -> float:
        """Return the factor for ``row`` and a context >= 1; beyond the grid its edge holds."""
        row = row if row < self._top else self._top
        position = PER_OCTAVE * log2(context)
        column = int(position)
        share = position - column
        if column > self._last:
            column, share = self._last, 1.0
        below = self._below[row]
        low = self._factors[below]
        high = self._factors[below + 1] if below + 1 < len(self._factors) else low
        first = low[column] + share * (low[column + 1] - low[column])
        second = high[column] + share * (high[column + 1] - high[column])
        return first + self._share[row] * (second - first)


def _contexts() -> Floats:
    return np.asarray(2.0 ** (np.arange(PER_OCTAVE * OCTAVES + 1) / PER_OCTAVE), dtype=np.float64)


class _Heads:
    """A model's attention heads on one GPU, as the shape columns of an op."""

    def __init__(self, deployment: Deployment) -> None:
        self.heads, self.kv_heads = deployment.spec.heads_on(deployment.tensor_parallel_size)
        self.width = deployment.spec.head_dim
        self.element_bytes = deployment.spec.dtype_bytes

    def columns(self, rows: int) -> dict[str, Any]:
        """Return the columns that are the same in every row."""
        values = {"heads": self.heads, "kv_heads": self.kv_heads, "head_dim": self.width}
        values["element_bytes"] = self.element_bytes
        return {key: np.full(rows, float(value)) for key, value in values.items()}


class DecodeAttention:
    """Seconds of one layer's decode attention on one GPU.

    The sum of contexts counts as if all were equal. A context much longer than the others can end after
    them. While all thread blocks start at once, kernels that split contexts hide it, and those that do not
    take at least as long as it takes alone. Where blocks queue, it starts at any moment; what it then adds
    is expected: a^2 / 2t for a block of a seconds among t of the others. Such a block reads at twice a
    multiprocessor's share of the memory bandwidth, which fits the tables of unequal contexts of two GPUs
    best (RTX 4090, RTX PRO 6000).
    """

    STREAM_SHARE = 2.0

    def __init__(self, deployment: Deployment, op: FittedOp, most_decodes: int) -> None:
        self._op, self._device, self._sms = op, deployment.hardware, deployment.hardware.sms
        self._heads = _Heads(deployment)
        terms = self._terms(op.coefficients)
        self._launch_s, self._kv_s, self._idle_s, self._row_s, self._step_s = terms
        token_bytes = 2 * self._heads.width * self._heads.element_bytes
        rate = self.STREAM_SHARE * self._device.memory_bandwidth_bytes_per_s / self._sms
        self._stream_s = token_bytes / rate
        rows = [row for row in _ROWS if row < most_decodes] + [max(most_decodes, 2)]
        self._corrections = _Corrections(rows, self._factors(rows))

    def time(self, decodes: int, context_sum: float, context_max: float) -> float:
        """Return seconds for ``decodes`` sequences (>= 1) that attend to ``context_sum`` KV tokens."""
        mean = context_sum / decodes if context_sum > decodes else 1.0
        blocks = decodes * self._heads.kv_heads
        seconds = self._launch_s + self._kv_s * context_sum + self._row_s * decodes
        seconds += self._step_s * log2(mean)
        if self._idle_s:
            waves = -(-blocks // self._sms)
            seconds += self._idle_s * context_sum * (waves * self._sms / blocks - 1)
        seconds *= self._corrections.at(decodes, mean)
        if context_max > mean + mean:
            seconds += self._tail(seconds, context_max, blocks)
        return seconds

    def _tail(self, seconds: float, context_max: float, blocks: int) -> float:
        if blocks <= self._sms:
            return max(0.0, self.time(1, context_max, context_max) - seconds) if self._idle_s else 0.0
        alone = self._stream_s * context_max
        return alone - seconds / 2 if alone >= seconds else alone * alone / (2 * seconds)

    def _terms(self, coefficients: Mapping[str, float]) -> tuple[float, float, float, float, float]:
        """Return seconds a launch, a KV token, an idle KV token, a sequence and a doubling of the context."""
        c, heads = coefficients, self._heads
        token_s = 2 * heads.kv_heads * heads.width * heads.element_bytes / self._device.memory_bandwidth_bytes_per_s
        idle_s = c["idle_kv_bytes"] * token_s if heads.heads == heads.kv_heads else 0.0
        row_s = 1e-6 * (c["query_blocks"] * heads.heads + c["kv_blocks"] * heads.kv_heads) / self._sms
        return 1e-6 * c["launch"], c["kv_bytes"] * token_s, idle_s, row_s, 1e-6 * c["kv_steps"]

    def _factors(self, rows: list[int]) -> Floats:
        contexts = _contexts()
        shape = self._heads.columns(len(rows) * len(contexts))
        shape["sequences"] = np.repeat(np.asarray(rows, float), len(contexts))
        shape["past_tokens"] = np.tile(contexts, len(rows)) - 1
        return np.exp(self._op.correction(shape, self._device)).reshape(len(rows), len(contexts))


class PrefillAttention:
    """Seconds of one layer's prefill attention on one GPU, chunk by chunk.

    The chunks of a batch run in one launch, so only the first pays for it.
    """

    def __init__(self, deployment: Deployment, op: FittedOp, most_tokens: int) -> None:
        self._op, self._device, self._sms = op, deployment.hardware, deployment.hardware.sms
        self._heads = _Heads(deployment)
        self._coefficients = tuple(op.coefficients[name] for name in PREFILL_ATTENTION.coefficients)
        self._window = deployment.spec.sliding_window or sys.maxsize
        self.launch_s = 1e-6 * op.coefficients["launch"]
        rows = [row for row in _ROWS if row < most_tokens] + [max(most_tokens, 2)]
        self._corrections = _Corrections(rows, self._factors(rows))

    def time(self, tokens: int, past: int, pairs: float) -> float:
        """Return seconds for a chunk of ``tokens`` (>= 1) after ``past``, which computes ``pairs`` of a head."""
        device, heads, width = self._device, self._heads.heads, self._heads.width
        launch, flops, tiled, longest, moved, per_block, per_wave = self._coefficients
        blocks = heads * -(-tokens // QUERY_TILE)
        waves = -(-blocks // self._sms)
        mean = pairs / tokens
        context = min(past + tokens, self._window)
        kv_tokens = min(past + tokens, self._window + tokens)
        work = flops * heads * pairs + tiled * QUERY_TILE * waves * self._sms * mean
        work += longest * min(QUERY_TILE, tokens) * context * self._sms
        seconds = 4 * width * work / device.peak_flops
        elements = tokens * heads + kv_tokens * self._heads.kv_heads
        size_bytes = 2 * self._heads.element_bytes * width * elements
        seconds += moved * size_bytes / device.memory_bandwidth_bytes_per_s
        seconds += 1e-6 * (launch + per_block * blocks / self._sms + per_wave * waves)
        return seconds * self._corrections.at(tokens, mean)

    def _factors(self, rows: list[int]) -> Floats:
        contexts = _contexts()
        tokens = np.repeat(np.asarray(rows, float), len(contexts))
        shape = self._heads.columns(len(tokens)) | {"sequences": np.ones(len(tokens)), "query_tokens": tokens}
        shape["past_tokens"] = np.maximum(np.tile(contexts, len(rows)) - tokens / 2, 0)
        return np.exp(self._op.correction(shape, self._device)).reshape(len(rows), len(contexts))
