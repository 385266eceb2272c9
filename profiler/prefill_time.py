"""Prefill attention of one layer from the chunks of a batch, one value at a time."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from math import log2
from typing import TYPE_CHECKING, Any

import numpy as np

from profiler.aggregates import chunk_pairs
from profiler.correction_grid import CorrectionGrid, Heads, grid_contexts, grid_rows
from profiler.prefill_attention import (
    CACHE_STEEPNESS,
    COEFFICIENTS,
    FULL_WAVE,
    PACKED,
    SM_THREADS,
    SOFTMAX_WIDTH,
    UNSPLIT_TILES,
    WRITE_THREADS,
    kv_tile,
    query_tile,
)

if TYPE_CHECKING:
    from profiler.deployment import Deployment
    from profiler.fitted import FittedOp

Launch = tuple[float, float, int, int, int, int]
"""Of one head: (query, key) pairs, the longest context of a query tile; query and KV tokens read; query tiles, of one
KV head's query heads where the kernel packs them; and those of the longest chunk."""
Weights = tuple[float, float, float]
"""Squares of the chunks' pairs; their tokens and mean contexts, weighted by pairs."""
FULLY_LOADED = 4.0
"""Times the load from which on clocks fall, at which they have fallen."""
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
        packed = bool(op.coefficients.get(PACKED, 0))
        self._packing = self._heads.heads // self._heads.kv_heads if packed else 1
        self._blocks_of_tile = self._heads.kv_heads if packed else self._heads.heads
        self._tile = query_tile(packed, self._heads.width)
        self._most_split = FULL_WAVE * self._sms / self._heads.kv_heads if packed else 0.0
        self._split_from = UNSPLIT_TILES * kv_tile(self._heads.width)
        known = {name: op.coefficients.get(name, absent) for name, (*_, absent) in COEFFICIENTS.items()}
        self._costs, self._shape = self._unit_costs(known), self._limits(known)
        self._window = deployment.spec.sliding_window
        self._reach = self._window or sys.maxsize
        self._rows = grid_rows(most_tokens)
        self._grids: dict[int, CorrectionGrid] = {}
        self._alone = self._grid(0)

    def time(self, chunks: Sequence[Any]) -> float:
        """Return seconds for ``chunks`` (one or more), each with ``tokens`` (>= 1) after ``past``."""
        if len(chunks) == 1:
            return self.alone(chunks[0].tokens, chunks[0].past)
        launch, (squares, tokens, contexts), most = self._launch(chunks)
        pairs = launch[0]
        seconds = self._seconds(*launch)
        seconds *= self._correction(pairs * pairs / squares, int(tokens / pairs + 0.5), contexts / pairs)
        if seconds >= self._at_most(most) * self._alone.highest:
            return seconds
        return max(seconds, max(self.alone(chunk.tokens, chunk.past) for chunk in chunks))

    def _launch(self, chunks: Sequence[Any]) -> tuple[Launch, Weights, Launch]:
        """Return what one launch over ``chunks`` adds up to, its weights, and what none of them exceeds alone."""
        reach, packing, tile = self._reach, self._packing, self._tile
        pairs = squares = sizes = contexts = 0.0
        longest = most_pairs = 0.0
        queries = keys = tiles = most_tokens = most_keys = 0
        for chunk in chunks:
            tokens = chunk.tokens
            end = chunk.past + tokens
            if end <= reach:
                own_pairs, context, read = tokens * (chunk.past + end + 1) * 0.5, end, end
            else:
                own_pairs, context = chunk_pairs(tokens, chunk.past, self._window), reach
                read = min(end, reach + tokens)
            pairs += own_pairs
            squares += own_pairs * own_pairs
            sizes += own_pairs * tokens
            contexts += own_pairs * own_pairs / tokens
            queries += tokens
            keys += read
            tiles += -(-tokens * packing // tile)
            longest = context if context > longest else longest
            most_pairs = own_pairs if own_pairs > most_pairs else most_pairs
            most_tokens = tokens if tokens > most_tokens else most_tokens
            most_keys = read if read > most_keys else most_keys
        most_tiles = -(-most_tokens * packing // tile)
        most = (most_pairs, longest, most_tokens, most_keys, most_tiles, most_tiles)
        return (pairs, longest, queries, keys, tiles, most_tiles), (squares, sizes, contexts), most

    def _at_most(self, most: Launch) -> float:
        """Return seconds that no launch within ``most`` exceeds, whether its contexts are split or not."""
        whole = self._seconds(*most[:5], sys.maxsize)
        return max(whole, self._seconds(*most[:5], 0)) if self._most_split else whole

    def alone(self, tokens: int, past: int) -> float:
        """Return seconds for one chunk of ``tokens`` (>= 1) after ``past``."""
        end = past + tokens
        pairs = chunk_pairs(tokens, past, self._window)
        tiles = -(-tokens * self._packing // self._tile)
        seconds = self._seconds(pairs, min(end, self._reach), tokens, min(end, self._reach + tokens), tiles, tiles)
        return seconds * self._alone.at(tokens, pairs / tokens)

    def _seconds(
        self, pairs: float, longest: float, queries: int, keys: int, tiles: int, tiles_of_longest: int
    ) -> float:
        """Return the uncorrected seconds of one :data:`Launch`."""
        launch_s, split_s, pair_s, loads, sustained_s, query_s, key_s, combine_s, tile_s, wave_s = self._costs
        filled_by_query, filled_by_key, cached_cost, start_s, longest_s, exponent = self._shape
        seconds = pair_s * pairs
        loaded = loads * pairs
        if loaded > 1:
            seconds += sustained_s * pairs * (log2(loaded) / 2 if loaded < FULLY_LOADED else 1.0)
        missed: float = 1 / (1 + (filled_by_query * queries + filled_by_key * keys) ** -CACHE_STEEPNESS)
        seconds += (cached_cost + (1 - cached_cost) * missed) * (query_s * queries + key_s * keys)
        seconds += tile_s * tiles + wave_s * -(-self._blocks_of_tile * tiles // self._sms)
        if tiles_of_longest < self._most_split and longest > self._split_from:
            return launch_s + split_s + seconds + combine_s * queries
        alone = start_s + longest_s * longest
        more, less = (seconds, alone) if seconds > alone else (alone, seconds)
        both: float = (1 + (less / more) ** exponent) ** (1 / exponent)
        return launch_s + more * both

    def _unit_costs(self, c: Mapping[str, float]) -> tuple[float, ...]:
        """Return what :meth:`_seconds` multiplies with: the terms of the op's physics for one of each."""
        heads, device = self._heads, self._device
        width = heads.width
        flop_s = 4 * heads.heads / device.peak_flops
        byte_s = 1 / device.memory_bandwidth_bytes_per_s
        token_s = 2 * heads.element_bytes * width * byte_s
        write_s = 1e-6 * min(heads.kv_heads * width, WRITE_THREADS) / SM_THREADS / device.sms
        return (
            1e-6 * c["launch"],
            1e-6 * c["split_launch"],
            (c["flops"] * width + c["softmax"] * SOFTMAX_WIDTH) * flop_s,
            1e3 * width * flop_s / c["sustained_from"],
            c["sustained"] * width * width / (width + SOFTMAX_WIDTH) * flop_s,
            c["query_bytes"] * token_s * heads.heads + c["kv_write"] * write_s,
            c["kv_bytes"] * token_s * heads.kv_heads,
            c["combine"] * 8 * heads.heads * width * byte_s,
            1e-6 * c["blocks"] * self._blocks_of_tile / device.sms,
            1e-6 * c["waves"],
        )

    def _limits(self, c: Mapping[str, float]) -> tuple[float, ...]:
        """Return how :meth:`_seconds` bends: how a token fills the cache, and what the longest block costs."""
        heads, device = self._heads, self._device
        filled = 2 * heads.element_bytes * heads.width / (c["cache_share"] * device.l2_bytes)
        per_token = (c["longest_block"] * heads.width + c["longest_softmax"] * SOFTMAX_WIDTH) / device.peak_flops
        longest_s = 4 * per_token * self._tile * device.sms
        start_s = 1e-6 * c["longest_start"]
        exponent = c["overlap_exponent"]
        return filled * heads.heads, filled * heads.kv_heads, c["cached_cost"], start_s, longest_s, exponent

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
