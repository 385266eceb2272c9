"""Decode attention of one layer from a batch's aggregates, one value at a time."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from math import log2
from typing import TYPE_CHECKING

import numpy as np

from profiler.correction_grid import PER_OCTAVE, CorrectionGrid, Heads, grid_contexts, grid_rows
from profiler.lazy_table import LazyTable
from profiler.tile import Floats

if TYPE_CHECKING:
    from profiler.deployment import Deployment
    from profiler.fitted import FittedOp

UNSPLIT = 0.5
"""Share from which on a kernel counts as one that leaves a context to one thread block."""
FEWEST_ROWS = 6
"""A layout that was profiled at fewer different numbers of decodes gets the rows of the physics."""


class DecodeAttention:
    """Seconds of one layer's decode attention on one GPU.

    The sum of contexts counts as if all were equal: their time is a launch and the KV bytes, times a factor
    from a grid of decodes and mean contexts. Where the head layout was profiled, the grid's rows are the decodes
    that it was profiled at: thread blocks of unequal contexts end at different times and make room for the next, so
    that between two of them there are no waves to step over. No launch takes less than its longest context alone,
    which a kernel that splits contexts spreads over all multiprocessors while there are more of them than blocks;
    else one thread block reads it, at twice a multiprocessor's share of the memory bandwidth (RTX 4090: 16 GB/s).
    """

    STREAM_SHARE = 2.0

    def __init__(self, deployment: Deployment, op: FittedOp, most_decodes: int) -> None:
        self._op, self._device = op, deployment.hardware
        self._heads = Heads(deployment)
        self._reach = deployment.spec.sliding_window or sys.maxsize
        token_bytes = 2 * self._heads.width * self._heads.element_bytes
        self._token_s = token_bytes * self._heads.kv_heads / self._device.memory_bandwidth_bytes_per_s
        self._stream_s = (
            token_bytes * self._device.sms / (self.STREAM_SHARE * self._device.memory_bandwidth_bytes_per_s)
        )
        self._at_once = self._device.sms // self._heads.kv_heads
        whole = self._heads.heads == self._heads.kv_heads
        self._hidden = 0 if whole and op.coefficients["unsplit"] > UNSPLIT else self._at_once
        rows = self._rows(most_decodes)
        seconds = self._seconds(rows)
        self._launch_s = float(seconds[0, 0])
        even = self._launch_s + self._token_s * np.outer(rows, grid_contexts())
        self._factors = LazyTable(CorrectionGrid(rows, seconds / even).line)

    def time(self, decodes: int, context_sum: float, context_max: float) -> float:
        """Return seconds for ``decodes`` sequences (>= 1) whose contexts add up to ``context_sum`` tokens.

        With a window they read what :func:`profiler.aggregates.decode_tokens_read` says.
        """
        if context_max > self._reach:
            context_max, context_sum = self._reach, min(context_sum, decodes * self._reach)
        mean = context_sum / decodes if context_sum > decodes else 1.0
        position = PER_OCTAVE * log2(mean)
        factor, rise = self._factors[decodes][int(position)]
        seconds = (self._launch_s + self._token_s * context_sum) * (factor + rise * position)
        if context_max > mean + mean and decodes > self._hidden:
            return max(seconds, self._longest(context_max, decodes))
        return seconds

    def times(self, decodes: int, context_sum: int, context_max: int) -> Iterator[float]:
        """Yield :meth:`time` of a batch, then of the same with every context longer by one token, and so on."""
        launch_s, token_s, lines = self._launch_s, self._token_s, self._factors[decodes]
        while context_max <= self._reach and context_sum > decodes:
            if context_max > (context_sum + context_sum) / decodes and decodes > self._hidden:
                break
            position = PER_OCTAVE * log2(context_sum / decodes)
            factor, rise = lines[int(position)]
            yield (launch_s + token_s * context_sum) * (factor + rise * position)
            context_sum += decodes
            context_max += 1
        while True:
            yield self.time(decodes, context_sum, context_max)
            context_sum += decodes
            context_max += 1

    def _longest(self, context: float, decodes: int) -> float:
        """Return seconds for the longest context alone, beside more decodes than those among which it is split."""
        if decodes > self._at_once:
            return self._stream_s * context
        return self.time(1, context, context)

    def _rows(self, most_decodes: int) -> list[int]:
        profiled = self._op.profiled(self._heads.columns(1) | {"sequences": np.ones(1), "past_tokens": np.zeros(1)})
        rows = sorted({round(2**each) for each in profiled[:, 0]}) if profiled is not None else []
        if len(rows) < FEWEST_ROWS:
            return grid_rows(most_decodes)
        return [row for row in rows if row < most_decodes] + [most_decodes]

    def _seconds(self, rows: list[int]) -> Floats:
        """Return the predictions of equal contexts, [rows, contexts of the grid]."""
        contexts = grid_contexts()
        shape = self._heads.columns(len(rows) * len(contexts))
        shape["sequences"] = np.repeat(np.asarray(rows, float), len(contexts))
        shape["past_tokens"] = np.tile(contexts, len(rows)) - 1
        return self._op.predict(shape, self._device).reshape(len(rows), len(contexts))
