"""Prefill attention of one layer from the chunks of a batch, one value at a time."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from math import log2
from typing import TYPE_CHECKING, Any

import numpy as np

from profiler.aggregates import chunk_pairs
from profiler.correction_grid import PER_OCTAVE, Cell, CorrectionGrid, Heads, grid_contexts, grid_rows
from profiler.lazy_table import LazyTable

if TYPE_CHECKING:
    from profiler.deployment import Deployment
    from profiler.fitted import FittedOp

MOST_DOUBLINGS = 8
"""Factors know up to 2^8 chunks a batch, as the largest published tables do; beyond, those of 256 hold."""
USUAL_DOUBLINGS = 2
"""Few batches hold chunks worth more than 2^2 equal ones: up to here factors are made beforehand, else when met."""
SHORTEST = 2
"""Tokens of the shortest chunk: one token runs a decode kernel."""

Size = tuple[float, float, float, float, list[Cell], float]
"""Of chunks of one size, alone: half of it; the ideal seconds of one, and those for each token of its mean context, up
to which mean context this holds; and where its factors are (:meth:`CorrectionGrid.around`)."""
Share = tuple[float, float, float, float, float]
"""Of chunks of one size, in a launch: the first four of :data:`Size`, seconds by the largest factor; and the ideal
seconds that its tokens add."""


class PrefillAttention:
    """Seconds of one layer's prefill attention on one GPU.

    The chunks of a batch run in one launch. Ideally it takes a launch, the FLOPs of all (query, key) pairs at the
    peak rate and the bytes of queries, outputs, keys and values at the memory bandwidth. The factor to what the
    fitted op predicts is read from a grid at the chunk size and mean context of the average pair, for as many equal
    chunks as would spread the pairs as evenly: (sum of pairs)^2 / sum of squares. A batch takes no less than any of
    its chunks alone.

    What chunks of the same size share is tabulated when the first of them comes.
    """

    def __init__(self, deployment: Deployment, op: FittedOp, most_tokens: int) -> None:
        self._op, self._device, self._heads = op, deployment.hardware, Heads(deployment)
        self._window = deployment.spec.sliding_window
        self._reach = self._window or sys.maxsize
        self._rows = grid_rows(most_tokens)
        heads, device = self._heads, self._device
        token_s = 2 * heads.element_bytes * heads.width / device.memory_bandwidth_bytes_per_s
        self._pair_s = 4 * heads.width * heads.heads / device.peak_flops
        self._key_s = token_s * heads.kv_heads
        self._query_s = token_s * heads.heads + self._key_s
        self._launch_s = float(self._predict(np.full(1, float(SHORTEST)), np.zeros(1), 1.0)[0])
        self._grids = LazyTable(self._grid)
        self._grids.update((doublings, self._grid(doublings)) for doublings in range(USUAL_DOUBLINGS + 1))
        self._sizes = LazyTable(self._size)
        self._shares = LazyTable(self._share)

    def time(self, chunks: Sequence[Any]) -> float:
        """Return seconds for ``chunks`` (one or more), each with ``tokens`` (>= 1) after ``past``."""
        if len(chunks) == 1:
            return self.alone(chunks[0].tokens, chunks[0].past)
        seconds, most_s = self._together(chunks)
        if seconds >= most_s:
            return seconds
        return max(seconds, *[self.alone(chunk.tokens, chunk.past) for chunk in chunks])

    def alone(self, tokens: int, past: int) -> float:
        """Return seconds for one chunk of ``tokens`` (>= 1) after ``past``."""
        half, fixed_s, context_s, straight, cells, part = self._sizes[tokens]
        context = past + half
        ideal_s = fixed_s + context_s * context
        if context > straight:
            context, past = self._seen(tokens, past)
            ideal_s = self._launch_s + self._pair_s * tokens * context + self._query_s * tokens + self._key_s * past
        position = PER_OCTAVE * log2(context)
        base, rise, more, steeper = cells[int(position)]
        return ideal_s * (base + rise * position + part * (more + steeper * position))

    def _together(self, chunks: Sequence[Any]) -> tuple[float, float]:
        """Return the seconds of one launch over ``chunks``, and what none of them exceeds alone."""
        pairs = squares = sizes = contexts = own_s = most_s = 0.0
        keys, shares = 0, self._shares
        for chunk in chunks:
            tokens, past = chunk.tokens, chunk.past
            half, fixed_s, context_s, straight, share_s = shares[tokens]
            context = past + half
            alone_s = fixed_s + context_s * context
            if context > straight:
                context, past = self._seen(tokens, past)
            own_pairs = tokens * context
            pairs += own_pairs
            squares += own_pairs * own_pairs
            sizes += own_pairs * tokens
            contexts += own_pairs * context
            own_s += share_s
            keys += past
            if alone_s > most_s:
                most_s = alone_s
        ideal_s = self._launch_s + own_s + self._pair_s * pairs + self._key_s * keys
        return ideal_s * self._factor(pairs * pairs / squares, int(sizes / pairs + 0.5), contexts / pairs), most_s

    def _seen(self, tokens: int, past: int) -> tuple[float, int]:
        """Return the mean context of a chunk, and how much it reads of its past."""
        return chunk_pairs(tokens, past, self._window) / tokens, min(past, self._reach)

    def _size(self, tokens: int) -> Size:
        half = (tokens + 1) * 0.5
        fixed_s = self._launch_s + self._query_s * tokens - self._key_s * half
        straight = self._reach - tokens + half
        return half, fixed_s, self._pair_s * tokens + self._key_s, straight, *self._grids[0].around(tokens)

    def _share(self, tokens: int) -> Share:
        half, fixed_s, context_s, straight, *_ = self._sizes[tokens]
        largest = self._grids[0].highest(tokens)
        return half, largest * fixed_s, largest * context_s, straight, self._query_s * tokens

    def _factor(self, chunks: float, tokens: int, context: float) -> float:
        """Return the factor for ``chunks`` (a real number >= 1) equal ones."""
        doublings, position = log2(chunks), PER_OCTAVE * log2(context)
        below = int(doublings)
        if below >= MOST_DOUBLINGS:
            return self._grids[MOST_DOUBLINGS].at(tokens, position)
        low = self._grids[below].at(tokens, position)
        return low + (doublings - below) * (self._grids[below + 1].at(tokens, position) - low)

    def _grid(self, doublings: int) -> CorrectionGrid:
        """Return the factors of ``2 ** doublings`` equal chunks."""
        contexts, chunks = grid_contexts(), 2.0**doublings
        tokens = np.repeat(np.maximum(self._rows, SHORTEST).astype(float), len(contexts))
        past = np.maximum(np.tile(contexts, len(self._rows)) - (tokens + 1) / 2, 0)
        (tokens, past), index = np.unique([tokens, past], axis=1, return_inverse=True)
        pairs_s = self._pair_s * tokens * (past + (tokens + 1) / 2)
        ideal_s = self._launch_s + chunks * (pairs_s + self._query_s * tokens + self._key_s * past)
        factors = self._predict(tokens, past, chunks) / ideal_s
        return CorrectionGrid(self._rows, factors[index].reshape(len(self._rows), len(contexts)))

    def _predict(self, tokens: Any, past: Any, chunks: float) -> Any:
        """Return what the op predicts for ``chunks`` equal chunks, [rows]."""
        shape = self._heads.columns(len(tokens)) | {"query_tokens": tokens, "past_tokens": past}
        return self._op.predict(shape | {"sequences": np.full(len(tokens), chunks)}, self._device)
