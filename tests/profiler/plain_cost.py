"""What an iteration costs, spelled out: nothing is tabulated by decodes or chunk sizes, nothing remembered."""

from __future__ import annotations

from collections.abc import Sequence
from math import log2
from typing import Any

import numpy as np

from profiler.aggregates import BatchLike, chunk_pairs, columns_of, decode_tokens_read
from profiler.correction_grid import PER_OCTAVE, Heads, grid_contexts, grid_rows
from profiler.cost_model import LEAST_TABLE, MOST_DECODES, CostModel
from profiler.decode_time import UNSPLIT, DecodeAttention
from profiler.deployment import Deployment
from profiler.fitted import FittedOp
from profiler.prefill_time import MOST_DOUBLINGS, SHORTEST


class PlainCostModel:
    """Predicts the iterations that a cost model does, one stage of a machine at pace 1 and two launches a layer."""

    def __init__(self, cost_model: CostModel, stage: int = 0) -> None:
        deployment, ops = cost_model.deployment, cost_model.fitted.ops
        self._stage, self._engine = cost_model._ops[stage], cost_model._engines[stage]
        self._layers, self._window = deployment.stage_layers[stage], deployment.spec.sliding_window
        most_tokens = max(LEAST_TABLE, deployment.max_num_batched_tokens)
        most_outputs = max(MOST_DECODES, deployment.max_num_seqs)
        self._tables = self._stage.tables(most_tokens, most_outputs)
        self._prefill = PlainPrefill(deployment, ops["prefill_attention"], most_tokens)
        self._decode = PlainDecode(deployment, ops["decode_attention"], most_outputs)

    def iteration_time(self, batch: BatchLike) -> float:
        tokens, engine = batch.prefill_tokens + batch.decodes, self._engine
        attention_s = 0.0
        if batch.chunks:
            attention_s += engine.factors["prefill attention"] * self._prefill.time(batch.chunks)
        if batch.decodes:
            read, longest = float(decode_tokens_read(columns_of(batch), self._window)[0]), batch.decode_context_max
            longest = min(longest, self._window or longest)
            attention_s += engine.factors["decode attention"] * self._decode.time(batch.decodes, read, longest)
        own_s = engine.iteration_s + engine.chunk_s * len(batch.chunks) + engine.decode_s * batch.decodes
        return self._linear_s(tokens) + self._layers * attention_s + self._head_s(batch.outputs) + own_s

    def _linear_s(self, tokens: int) -> float:
        if tokens < len(self._tables.linear_s):
            return self._tables.linear_s[tokens] + self._tables.communication_s[tokens]
        row = np.asarray([float(tokens)])
        return float(sum(part[0] for part in self._stage.linear_parts(row)) + self._stage.communication(row)[0])

    def _head_s(self, outputs: int) -> float:
        if not self._tables.head_s:
            return 0.0
        if outputs < len(self._tables.head_s):
            return self._tables.head_s[outputs] + self._tables.gather_s[outputs]
        row = np.asarray([float(outputs)])
        return float(self._stage.head(row)[0] + self._stage.gather(row)[0])


class PlainGrid:
    """Factors by rows and thirds of a doubling of the context, bilinear between them, constant beyond."""

    def __init__(self, rows: list[int], factors: Any) -> None:
        self._rows, self._factors = rows, factors

    def at(self, row: int, context: float) -> float:
        columns = self._factors.shape[1] - 1
        place, position = np.interp(row, self._rows, np.arange(len(self._rows))), PER_OCTAVE * log2(context)
        column = min(int(position), columns - 1)
        share = min(position - column, 1.0)
        above = min(int(place), len(self._rows) - 2)
        low, high = (line[column] + share * (line[column + 1] - line[column]) for line in self._factors[above:][:2])
        return float(low + (place - above) * (high - low))


class PlainDecode:
    """See :class:`profiler.decode_time.DecodeAttention`."""

    def __init__(self, deployment: Deployment, op: FittedOp, most_decodes: int) -> None:
        heads, device = Heads(deployment), deployment.hardware
        self._kv_heads, self._sms = heads.kv_heads, device.sms
        token_bytes, rate = 2 * heads.width * heads.element_bytes, device.memory_bandwidth_bytes_per_s
        self._token_s = token_bytes * heads.kv_heads / rate
        self._stream_s = token_bytes * device.sms / (DecodeAttention.STREAM_SHARE * rate)
        self._unsplit = heads.heads == heads.kv_heads and op.coefficients["unsplit"] > UNSPLIT
        rows, contexts = grid_rows(most_decodes), grid_contexts()
        shape = heads.columns(len(rows) * len(contexts))
        shape["sequences"] = np.repeat(np.asarray(rows, float), len(contexts))
        shape["past_tokens"] = np.tile(contexts, len(rows)) - 1
        seconds = op.predict(shape, device).reshape(len(rows), len(contexts))
        self._launch_s = float(seconds[0, 0])
        self._grid = PlainGrid(rows, seconds / (self._launch_s + self._token_s * np.outer(rows, contexts)))

    def time(self, decodes: int, context_sum: float, context_max: float) -> float:
        mean = max(context_sum / decodes, 1.0)
        seconds = (self._launch_s + self._token_s * context_sum) * self._grid.at(decodes, mean)
        if context_max <= 2 * mean:
            return seconds
        if decodes * self._kv_heads <= self._sms:
            return max(seconds, self.time(1, context_max, context_max)) if self._unsplit else seconds
        return max(seconds, self._stream_s * context_max)


class PlainPrefill:
    """See :class:`profiler.prefill_time.PrefillAttention`."""

    def __init__(self, deployment: Deployment, op: FittedOp, most_tokens: int) -> None:
        self._op, self._device, self._window = op, deployment.hardware, deployment.spec.sliding_window
        self._heads, self._rows = Heads(deployment), grid_rows(most_tokens)
        self._grids: dict[int, PlainGrid] = {}
        self._launch_s = float(self._predict(1.0, np.full(1, float(SHORTEST)), np.zeros(1))[0])

    def time(self, chunks: Sequence[Any]) -> float:
        return max(self._launch(chunks), *[self._launch([chunk]) for chunk in chunks])

    def _launch(self, chunks: Sequence[Any]) -> float:
        """Return the seconds of one launch over ``chunks``, whatever they take alone."""
        own = [chunk_pairs(chunk.tokens, chunk.past, self._window) for chunk in chunks]
        pairs = sum(own)
        equal = pairs * pairs / sum(each * each for each in own)
        tokens = sum(each * chunk.tokens for each, chunk in zip(own, chunks, strict=True)) / pairs
        context = sum(each * each / chunk.tokens for each, chunk in zip(own, chunks, strict=True)) / pairs
        queries = sum(chunk.tokens for chunk in chunks)
        keys = queries + sum(min(chunk.past, self._window or chunk.past) for chunk in chunks)
        return self._ideal(pairs, queries, keys) * self._factor(equal, int(tokens + 0.5), context)

    def _ideal(self, pairs: Any, queries: Any, keys: Any) -> Any:
        heads, device = self._heads, self._device
        token_s = 2 * heads.element_bytes * heads.width / device.memory_bandwidth_bytes_per_s
        flops_s = 4 * heads.width * heads.heads * pairs / device.peak_flops
        return self._launch_s + flops_s + token_s * (queries * heads.heads + keys * heads.kv_heads)

    def _factor(self, chunks: float, tokens: int, context: float) -> float:
        doublings = min(max(log2(chunks), 0.0), MOST_DOUBLINGS)
        below = min(int(doublings), MOST_DOUBLINGS - 1)
        low, high = (self._grid(each).at(tokens, context) for each in (below, below + 1))
        return low + (doublings - below) * (high - low)

    def _grid(self, doublings: int) -> PlainGrid:
        if doublings not in self._grids:
            contexts, count = grid_contexts(), 2.0**doublings
            tokens = np.maximum(np.repeat(np.asarray(self._rows, float), len(contexts)), SHORTEST)
            past = np.maximum(np.tile(contexts, len(self._rows)) - (tokens + 1) / 2, 0)
            ideal_s = self._ideal(count * tokens * (past + (tokens + 1) / 2), count * tokens, count * (tokens + past))
            factors = (self._predict(count, tokens, past) / ideal_s).reshape(len(self._rows), len(contexts))
            self._grids[doublings] = PlainGrid(self._rows, factors)
        return self._grids[doublings]

    def _predict(self, count: float, tokens: Any, past: Any) -> Any:
        shape = self._heads.columns(len(tokens)) | {"sequences": np.full(len(tokens), count)}
        return self._op.predict(shape | {"query_tokens": tokens, "past_tokens": past}, self._device)
