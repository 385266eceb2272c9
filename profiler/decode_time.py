"""Decode attention of one layer from a batch's aggregates, one value at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from profiler.correction_grid import CorrectionGrid, Heads, grid_contexts, grid_rows
from profiler.tile import Floats

if TYPE_CHECKING:
    from profiler.deployment import Deployment
    from profiler.fitted import FittedOp

UNSPLIT = 0.5
"""Share from which on a kernel counts as one that leaves a context to one thread block."""


class DecodeAttention:
    """Seconds of one layer's decode attention on one GPU.

    The sum of contexts counts as if all were equal: their time is a launch and the KV bytes, times a factor
    from a grid of decodes and mean contexts. A context much longer than the others can end after
    them. While all thread blocks start at once, kernels that split contexts hide it, and those that do not
    take at least as long as it takes alone. Where blocks queue, it starts at any moment; what it then adds
    is expected: a^2 / 2t for a block of a seconds among t of the others. Such a block reads at twice a
    multiprocessor's share of the memory bandwidth, which fits the tables of unequal contexts of two GPUs
    best (RTX 4090, RTX PRO 6000).
    """

    STREAM_SHARE = 2.0

    def __init__(self, deployment: Deployment, op: FittedOp, most_decodes: int) -> None:
        self._op, self._device = op, deployment.hardware
        self._sms = self._device.sms
        self._heads = Heads(deployment)
        token_bytes = 2 * self._heads.width * self._heads.element_bytes
        self._token_s = token_bytes * self._heads.kv_heads / self._device.memory_bandwidth_bytes_per_s
        self._stream_s = token_bytes * self._sms / (self.STREAM_SHARE * self._device.memory_bandwidth_bytes_per_s)
        whole = self._heads.heads == self._heads.kv_heads
        self._unsplit = whole and op.coefficients["unsplit"] > UNSPLIT
        rows = grid_rows(most_decodes)
        seconds = self._seconds(rows)
        self._launch_s = float(seconds[0, 0])
        even = self._launch_s + self._token_s * np.outer(rows, grid_contexts())
        self._factors = CorrectionGrid(rows, seconds / even)

    def time(self, decodes: int, context_sum: float, context_max: float) -> float:
        """Return seconds for ``decodes`` sequences (>= 1) that attend to ``context_sum`` KV tokens."""
        mean = context_sum / decodes if context_sum > decodes else 1.0
        seconds = (self._launch_s + self._token_s * context_sum) * self._factors.at(decodes, mean)
        if context_max > mean + mean:
            seconds += self._tail(seconds, context_max, decodes * self._heads.kv_heads)
        return seconds

    def _tail(self, seconds: float, context_max: float, blocks: int) -> float:
        if blocks <= self._sms:
            return max(0.0, self.time(1, context_max, context_max) - seconds) if self._unsplit else 0.0
        alone = self._stream_s * context_max
        return alone - seconds / 2 if alone >= seconds else alone * alone / (2 * seconds)

    def _seconds(self, rows: list[int]) -> Floats:
        """Return the predictions of equal contexts, [rows, contexts of the grid]."""
        contexts = grid_contexts()
        shape = self._heads.columns(len(rows) * len(contexts))
        shape["sequences"] = np.repeat(np.asarray(rows, float), len(contexts))
        shape["past_tokens"] = np.tile(contexts, len(rows)) - 1
        return self._op.predict(shape, self._device).reshape(len(rows), len(contexts))
