"""Whole iterations as an op of a profile: which batches to measure, and what a cost model reads of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from profiler.grid import Grid
from profiler.kernels import OpShape
from profiler.model import Model

OP = "iteration"
ENDS_PROMPT, GOES_ON, DECODES = "ends prompts", "prompts go on", "decodes"
"""Kinds: each chunk ends its prompt, which yields a token; none does; there is no chunk."""
SPREAD = 0.5
"""Contexts of a batch's decodes lie evenly from this share below their mean to this share above it."""
DESIGNED = 64
SHORTEST = 8
MOST_CHUNKS = 8
KV_LAYERS = 4


@dataclass(frozen=True, slots=True)
class DesignedChunk:
    """A prefill slice of a designed batch."""

    tokens: int
    past: int


class DesignedBatch:
    """A measured iteration, as a cost model reads a batch (:class:`profiler.aggregates.BatchLike`)."""

    def __init__(self, shape: OpShape) -> None:
        contexts = decode_contexts(shape)
        self.chunks = [DesignedChunk(shape.query_tokens, shape.past_tokens)] * shape.sequences
        self.prefill_tokens = shape.sequences * shape.query_tokens
        self.decodes = shape.decodes
        self.outputs = shape.decodes + (shape.sequences if shape.kind == ENDS_PROMPT else 0)
        self.decode_context_sum = sum(contexts)
        self.decode_context_max = max(contexts, default=0)


def decode_contexts(shape: OpShape) -> list[int]:
    """Return the contexts of the decodes of a designed batch, their own tokens included."""
    low, high = (1 - SPREAD) * shape.decode_context, (1 + SPREAD) * shape.decode_context
    return [max(1, round(float(context))) for context in _even(low, high, shape.decodes)]


def _even(low: float, high: float, count: int) -> Any:
    return [(low + high) / 2] * count if count < 2 else np.linspace(low, high, count)


def kv_blocks(shape: OpShape, block_size: int) -> int:
    """Return the KV blocks that a designed batch holds, at most."""
    chunk = shape.past_tokens + shape.query_tokens + 1
    held = [chunk] * shape.sequences + decode_contexts(shape)
    return sum(-(-(tokens + 1) // block_size) for tokens in held)


def design_iterations(
    model: Model, grid: Grid, *, kv_tokens: int | None = None, count: int = DESIGNED, seed: int = 0
) -> list[OpShape]:
    """Return about ``count`` batches that fill the space of what an engine runs: decodes, prompts, chunks, mixed.

    A quarter holds decodes alone, a quarter prompts alone. Sizes and contexts are drawn evenly in their
    logarithms from a scrambled Sobol sequence, which leaves no part of the space empty.

    Parameters
    ----------
    grid
        How many tokens and sequences a batch has at most, and how long a context is.
    kv_tokens
        Tokens whose KV a batch holds at most; None: as many in all layers as one call of decode attention of
        ``grid`` may read in :data:`KV_LAYERS`.
    """
    from scipy.stats import qmc

    held = KV_LAYERS * grid.kv_tokens // model.layers if kv_tokens is None else kv_tokens
    points = qmc.Sobol(6, seed=seed).random(1 << (count - 1).bit_length())[:count]
    return list(dict.fromkeys(_designed(model, grid, held, point) for point in points.tolist()))


def _designed(model: Model, grid: Grid, held: int, point: list[float]) -> OpShape:
    """Return the batch at a point of the unit cube."""
    sort, tokens, chunks, decodes, past, context = point
    mixed = sort >= 0.5
    longest, held = min(grid.context, model.max_position) - 2, held // 2 if mixed else held
    numbers: dict[str, int] = {}
    if sort >= 0.25:
        count = _between(1, grid.sequences, decodes)
        mean = min(longest / (1 + SPREAD), held / count)
        numbers |= {"decodes": count, "decode_context": _between(SHORTEST, max(SHORTEST, mean), context)}
    if sort >= 0.25 and not mixed:
        return _shape(model, DECODES, **numbers)
    count = 1 if chunks < 0.6 else _between(2, MOST_CHUNKS, (chunks - 0.6) / 0.4)
    query = max(2, _between(SHORTEST, min(grid.tokens, longest, held), tokens) // count)
    room = min(longest, held // count) - query
    start = 0 if past < 0.5 or room < SHORTEST else _between(SHORTEST, room, 2 * past - 1)
    numbers |= {"sequences": count, "query_tokens": query, "past_tokens": start}
    return _shape(model, ENDS_PROMPT if 10 * chunks % 1 < 0.5 else GOES_ON, **numbers)


def _between(low: float, high: float, share: float) -> int:
    return round(float(low * (high / low) ** share))


def _shape(model: Model, kind: str, **numbers: int) -> OpShape:
    tokens = numbers.get("sequences", 0) * numbers.get("query_tokens", 0) + numbers.get("decodes", 0)
    heads, kv_heads = model.heads_on(1)
    layout = {"heads": heads, "kv_heads": kv_heads, "head_dim": model.head_dim}
    return OpShape(op=OP, kind=kind, m=tokens, **layout, **numbers)


def shapes_of(rows: list[dict[str, Any]]) -> Iterator[OpShape]:
    """Yield the shapes of rows of a profile."""
    names = OpShape.__dataclass_fields__
    for row in rows:
        yield OpShape(**{name: row[name] for name in names})
