"""Prefill attention of one layer from the chunks of a batch, one value at a time."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from math import log2
from typing import TYPE_CHECKING, Any

import numpy as np

from profiler.aggregates import chunk_pairs
from profiler.correction_grid import CorrectionGrid, Heads, grid_contexts, grid_rows
from profiler.prefill_attention import QUERY_TILE, SOFTMAX_WIDTH, SUSTAINED_S

if TYPE_CHECKING:
    from profiler.deployment import Deployment
    from profiler.fitted import FittedOp

Launch = tuple[float, float, float, float, float, float, float]
"""Of one head: (query, key) pairs, the longest context of a query tile; query and KV tokens read; query tiles, and
those with the query heads of a KV head packed; chunks."""
Weights = tuple[float, float, float]
"""Squares of the chunks' pairs; their tokens and mean contexts, weighted by pairs."""
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
        self._packing = self._heads.heads // self._heads.kv_heads
        self._costs = self._unit_costs(op.coefficients)
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
        if seconds >= self._seconds(*most) * self._alone.highest:
            return seconds
        return max(seconds, max(self.alone(chunk.tokens, chunk.past) for chunk in chunks))

    def _launch(self, chunks: Sequence[Any]) -> tuple[Launch, Weights, Launch]:
        """Return what one launch over ``chunks`` adds up to, its weights, and what none of them exceeds alone."""
        reach, packing = self._reach, self._packing
        pairs = squares = sizes = contexts = 0.0
        longest = most_pairs = 0.0
        queries = keys = tiles = packed = most_tokens = most_keys = 0
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
            tiles += -(-tokens // QUERY_TILE)
            packed += -(-tokens * packing // QUERY_TILE)
            longest = context if context > longest else longest
            most_pairs = own_pairs if own_pairs > most_pairs else most_pairs
            most_tokens = tokens if tokens > most_tokens else most_tokens
            most_keys = read if read > most_keys else most_keys
        most_tiles, most_packed = -(-most_tokens // QUERY_TILE), -(-most_tokens * packing // QUERY_TILE)
        most = (most_pairs, longest, most_tokens, most_keys, most_tiles, most_packed, 1)
        return (pairs, longest, queries, keys, tiles, packed, len(chunks)), (squares, sizes, contexts), most

    def alone(self, tokens: int, past: int) -> float:
        """Return seconds for one chunk of ``tokens`` (>= 1) after ``past``."""
        end = past + tokens
        pairs = chunk_pairs(tokens, past, self._window)
        tiles, packed = -(-tokens // QUERY_TILE), -(-tokens * self._packing // QUERY_TILE)
        seconds = self._seconds(pairs, min(end, self._reach), tokens, min(end, self._reach + tokens), tiles, packed, 1)
        return seconds * self._alone.at(tokens, pairs / tokens)

    def _seconds(
        self, pairs: float, longest: float, queries: float, keys: float, tiles: float, packed: float, chunks: float
    ) -> float:
        """Return the uncorrected seconds of one :data:`Launch`."""
        launch_s, pair_s, peak_s, sustained, longest_s, query_s, key_s, tile_s, wave_s, packed_s, chunk_s = self._costs
        beyond = peak_s * pairs - SUSTAINED_S
        seconds = launch_s + pair_s * pairs + longest_s * longest + query_s * queries + key_s * keys
        seconds += tile_s * tiles + chunk_s * chunks + (sustained * beyond if beyond > 0 else 0.0)
        waves, packed_waves = -(-self._heads.heads * tiles // self._sms), -(-self._heads.kv_heads * packed // self._sms)
        return seconds + wave_s * waves + packed_s * packed_waves

    def _unit_costs(self, c: Mapping[str, float]) -> tuple[float, ...]:
        """Return what :meth:`_seconds` multiplies with: the terms of the op's physics for one of each."""
        heads, device = self._heads, self._device
        width, share = heads.width, 1e-6 / device.sms
        flop_s = 4 / device.peak_flops
        token_s = 2 * heads.element_bytes * width / device.memory_bandwidth_bytes_per_s
        return (
            1e-6 * c["launch"],
            (c["flops"] * width + c["softmax"] * SOFTMAX_WIDTH) * flop_s * heads.heads,
            width * flop_s * heads.heads,
            c["sustained_flops"],
            (c["longest_block"] * width + c["longest_softmax"] * SOFTMAX_WIDTH) * flop_s * QUERY_TILE * device.sms,
            c["query_bytes"] * token_s * heads.heads,
            c["kv_bytes"] * token_s * heads.kv_heads,
            c["blocks"] * share * heads.heads * width / 128,
            1e-6 * c["waves"],
            1e-6 * c["packed_waves"],
            c["kv_heads"] * share * heads.kv_heads,
        )

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
