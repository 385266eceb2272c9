"""Prefill attention of one layer from the chunks of a batch, one value at a time."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from math import log2
from typing import TYPE_CHECKING, Any

import numpy as np

from profiler.aggregates import chunk_pairs
from profiler.correction_grid import CorrectionGrid, Heads, grid_contexts, grid_rows
from profiler.op import PREFILL_ATTENTION
from profiler.prefill_attention import QUERY_TILE

if TYPE_CHECKING:
    from profiler.deployment import Deployment
    from profiler.fitted import FittedOp

Sums = tuple[float, float, float, float, float, float, float, float]
"""Pairs of one head and their squares; tokens and mean contexts, weighted by pairs; mean contexts, weighted by query
tiles; the most pairs of one tile; elements of queries and KV; query tiles."""
Most = tuple[float, float, float, float, float]
"""What :meth:`PrefillAttention._seconds` takes, each the most of any chunk."""
MOST_DOUBLINGS = 8
"""Corrections know up to 2^8 chunks a batch, as the largest published tables do; beyond, those of 256 hold."""


class PrefillAttention:
    """Seconds of one layer's prefill attention on one GPU.

    The chunks of a batch run in one launch: pairs, thread blocks and bytes add up, waves are those of all
    blocks, and the block with the longest context is that of any chunk. The correction is one for the
    launch, read at the chunk size and mean context of the average pair, for as many equal chunks as would
    spread the pairs as evenly: (sum of pairs)^2 / sum of squares. A batch takes no less than any of its
    chunks alone.
    """

    def __init__(self, deployment: Deployment, op: FittedOp, most_tokens: int) -> None:
        self._op, self._device, self._sms = op, deployment.hardware, deployment.hardware.sms
        self._heads = Heads(deployment)
        self._coefficients = tuple(op.coefficients[name] for name in PREFILL_ATTENTION.coefficients)
        self._window = deployment.spec.sliding_window
        self._reach = self._window or sys.maxsize
        self._rows = grid_rows(most_tokens)
        self._grids: dict[int, CorrectionGrid] = {}
        self._alone = self._grid(0)

    def time(self, chunks: Sequence[Any]) -> float:
        """Return seconds for ``chunks`` (one or more), each with ``tokens`` (>= 1) after ``past``."""
        if len(chunks) == 1:
            return self.alone(chunks[0].tokens, chunks[0].past)
        sums, most = self._launch(chunks)
        pairs, squares, tokens, contexts, tile_contexts, longest, elements, tiles = sums
        seconds = self._seconds(pairs, tile_contexts / tiles, longest, elements, tiles)
        seconds *= self._correction(pairs * pairs / squares, int(tokens / pairs + 0.5), contexts / pairs)
        if seconds >= self._seconds(*most) * self._alone.highest:
            return seconds
        return max(seconds, max(self.alone(chunk.tokens, chunk.past) for chunk in chunks))

    def _launch(self, chunks: Sequence[Any]) -> tuple[Sums, Most]:
        """Return what one launch over ``chunks`` adds up to, and what none of them exceeds alone."""
        reach, kv_heads, heads = self._reach, self._heads.kv_heads, self._heads.heads
        pairs = squares = sizes = contexts = tiles = tile_contexts = elements = 0.0
        longest = most_pairs = most_tiles = most_mean = most_elements = 0.0
        for chunk in chunks:
            tokens = chunk.tokens
            end = chunk.past + tokens
            if end <= reach:
                own_pairs, context, read = tokens * (chunk.past + end + 1) * 0.5, end, end
            else:
                own_pairs, context = chunk_pairs(tokens, chunk.past, self._window), reach
                read = min(end, reach + tokens)
            mean, own_tiles = own_pairs / tokens, -(-tokens // QUERY_TILE)
            own_elements = tokens * heads + read * kv_heads
            own_longest = (tokens if tokens < QUERY_TILE else QUERY_TILE) * context
            pairs += own_pairs
            squares += own_pairs * own_pairs
            sizes += own_pairs * tokens
            contexts += own_pairs * mean
            tiles += own_tiles
            tile_contexts += own_tiles * mean
            elements += own_elements
            longest = own_longest if own_longest > longest else longest
            most_pairs = own_pairs if own_pairs > most_pairs else most_pairs
            most_tiles = own_tiles if own_tiles > most_tiles else most_tiles
            most_mean = mean if mean > most_mean else most_mean
            most_elements = own_elements if own_elements > most_elements else most_elements
        sums = (pairs, squares, sizes, contexts, tile_contexts, longest, elements, tiles)
        return sums, (most_pairs, most_mean, longest, most_elements, most_tiles)

    def alone(self, tokens: int, past: int) -> float:
        """Return seconds for one chunk of ``tokens`` (>= 1) after ``past``."""
        end = past + tokens
        pairs = chunk_pairs(tokens, past, self._window)
        read = min(end, self._reach + tokens)
        elements = tokens * self._heads.heads + read * self._heads.kv_heads
        longest = min(QUERY_TILE, tokens) * min(end, self._reach)
        seconds = self._seconds(pairs, pairs / tokens, longest, elements, -(-tokens // QUERY_TILE))
        return seconds * self._alone.at(tokens, pairs / tokens)

    def _seconds(self, pairs: float, mean: float, longest: float, elements: float, tiles: float) -> float:
        """Return the uncorrected seconds of one launch.

        Parameters
        ----------
        pairs, elements
            (query, key) pairs of one head, and elements of queries and KV, each summed over the chunks.
        mean
            Context of the average query tile.
        longest
            Pairs of the query tile with the longest context.
        tiles
            Query tiles of one head.
        """
        heads, width = self._heads.heads, self._heads.width
        launch, flops, tiled, longest_share, moved, per_block, per_wave = self._coefficients
        blocks = heads * tiles
        waves = -(-blocks // self._sms)
        work = flops * heads * pairs + tiled * QUERY_TILE * waves * self._sms * mean
        work += longest_share * longest * self._sms
        size_bytes = 2 * self._heads.element_bytes * width * elements
        seconds = 4 * width * work / self._device.peak_flops
        seconds += moved * size_bytes / self._device.memory_bandwidth_bytes_per_s
        return seconds + 1e-6 * (launch + per_block * blocks / self._sms + per_wave * waves)

    def _correction(self, chunks: float, tokens: int, context: float) -> float:
        """Return the factor for ``chunks`` (a real number >= 1) equal ones."""
        doublings = min(max(log2(chunks), 0.0), MOST_DOUBLINGS)
        below = int(doublings)
        low = self._grid(below).at(tokens, context)
        if doublings == below:
            return low
        return low + (doublings - below) * (self._grid(below + 1).at(tokens, context) - low)

    def _grid(self, doublings: int) -> CorrectionGrid:
        """Return the corrections of ``2 ** doublings`` equal chunks, made when first asked for."""
        if doublings not in self._grids:
            contexts = grid_contexts()
            tokens = np.repeat(np.asarray(self._rows, float), len(contexts))
            shape = self._heads.columns(len(tokens)) | {"query_tokens": tokens}
            shape["sequences"] = np.full(len(tokens), 2.0**doublings)
            shape["past_tokens"] = np.maximum(np.tile(contexts, len(self._rows)) - tokens / 2, 0)
            factors = np.exp(self._op.correction(shape, self._device)).reshape(len(self._rows), len(contexts))
            self._grids[doublings] = CorrectionGrid(self._rows, factors)
        return self._grids[doublings]
