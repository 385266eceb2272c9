"""Decode attention of one layer from a batch's aggregates, one value at a time."""

from __future__ import annotations

from collections.abc import Mapping
from math import log2
from typing import TYPE_CHECKING

import numpy as np

from profiler.correction_grid import CorrectionGrid, Heads, grid_contexts, grid_rows
from profiler.tile import Floats

if TYPE_CHECKING:
    from profiler.deployment import Deployment
    from profiler.fitted import FittedOp


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
        self._heads = Heads(deployment)
        terms = self._terms(op.coefficients)
        self._launch_s, self._kv_s, self._idle_s, self._row_s, self._step_s = terms
        token_bytes = 2 * self._heads.width * self._heads.element_bytes
        rate = self.STREAM_SHARE * self._device.memory_bandwidth_bytes_per_s / self._sms
        self._stream_s = token_bytes / rate
        rows = grid_rows(most_decodes)
        self._corrections = CorrectionGrid(rows, self._factors(rows))

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
        contexts = grid_contexts()
        shape = self._heads.columns(len(rows) * len(contexts))
        shape["sequences"] = np.repeat(np.asarray(rows, float), len(contexts))
        shape["past_tokens"] = np.tile(contexts, len(rows)) - 1
        return np.exp(self._op.correction(shape, self._device)).reshape(len(rows), len(contexts))
