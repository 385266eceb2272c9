"""What a cost model may read of a batch: its aggregates, each in O(1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from policies.costs import BatchLike as BatchLike
from profiler.tile import Floats

Columns = Mapping[str, npt.NDArray[Any]]
"""Batches as columns of their aggregates, each [batches]: see :func:`columns_of`."""


@dataclass(frozen=True, slots=True)
class Slice:
    """A prefill chunk of ``tokens`` after ``past``."""

    tokens: int
    past: int = 0


@dataclass(frozen=True, kw_only=True)
class Aggregates:
    """A batch given by its aggregates alone, for asking a cost model about one (see :class:`BatchLike`)."""

    chunks: tuple[Slice, ...] = ()
    decodes: int = 0
    outputs: int = 0
    decode_context_sum: int = 0
    decode_context_max: int = 0

    @property
    def prefill_tokens(self) -> int:
        """Tokens of the chunks."""
        return sum(chunk.tokens for chunk in self.chunks)

    @staticmethod
    def of(*chunks: int, past: int = 0, decodes: int = 0, context: int = 0) -> Aggregates:
        """Return chunks of these many tokens, each ending its prompt, with decodes of equal context."""
        return Aggregates(
            chunks=tuple(Slice(tokens, past) for tokens in chunks),
            decodes=decodes,
            outputs=decodes + len(chunks),
            decode_context_sum=decodes * context,
            decode_context_max=context if decodes else 0,
        )


def later(batch: BatchLike, turn: int) -> Aggregates:
    """Return a batch when it has run ``turn`` times: its decodes' contexts longer by that, chunks after themselves."""
    return Aggregates(
        chunks=tuple(Slice(chunk.tokens, chunk.past + turn * chunk.tokens) for chunk in batch.chunks),
        decodes=batch.decodes,
        outputs=batch.outputs,
        decode_context_sum=batch.decode_context_sum + turn * batch.decodes,
        decode_context_max=batch.decode_context_max + turn,
    )


def columns_of(batch: BatchLike) -> Columns:
    """Return a batch as columns of one row.

    Beside the aggregates of :class:`BatchLike` of the same names these are ``chunks``, their number, and the least and
    the most tokens of a chunk (``chunk_least``, ``chunk_most``) and KV tokens before one (``past_least``,
    ``past_most``), 0 where there is no chunk; and those of every chunk, ``chunk_tokens`` and ``chunk_past``, [chunks].
    """
    tokens = [chunk.tokens for chunk in batch.chunks]
    pasts = [chunk.past for chunk in batch.chunks]
    values = {
        "prefill_tokens": batch.prefill_tokens,
        "decodes": batch.decodes,
        "outputs": batch.outputs,
        "decode_context_sum": batch.decode_context_sum,
        "decode_context_max": batch.decode_context_max,
        "chunks": len(batch.chunks),
        "chunk_least": min(tokens, default=0),
        "chunk_most": max(tokens, default=0),
        "past_least": min(pasts, default=0),
        "past_most": max(pasts, default=0),
    }
    columns = {name: np.array([value], np.int64) for name, value in values.items()}
    return columns | {"chunk_tokens": np.array(tokens, np.int64), "chunk_past": np.array(pasts, np.int64)}


def decode_tokens_read(columns: Columns, window: int | None) -> Floats:
    """Return the KV tokens that the decodes of batches read, [batches]; with a window at most ``window`` each.

    From the sum of contexts alone this is exact where all contexts lie on one side of the window, else an
    upper bound.
    """
    contexts = columns["decode_context_sum"].astype(np.float64)
    if window is None:
        return contexts
    within = columns["decode_context_max"] <= window
    return np.where(within, contexts, np.minimum(contexts, columns["decodes"] * float(window)))


def prefill_pairs(columns: Columns, window: int | None) -> Floats:
    """Return the (query, key) pairs of one head that the chunks of batches compute, [batches].

    Parameters
    ----------
    columns
        The number of ``chunks``, [batches], and end to end ``chunk_tokens`` and ``chunk_past``.
    window
        As of :func:`chunk_pairs`, which says it of one chunk.
    """
    tokens, past, rows = columns["chunk_tokens"], columns["chunk_past"], len(columns["chunks"])
    growing = tokens if window is None else np.minimum(tokens, np.maximum(window - past, 0))
    pairs = growing * past + growing * (growing + 1) / 2
    if window is not None:
        pairs += (tokens - growing) * float(window)
    of_rows = np.bincount(np.repeat(np.arange(rows), columns["chunks"]), weights=pairs, minlength=rows)
    return np.asarray(of_rows, dtype=np.float64)


def chunk_pairs(tokens: int, past: int, window: int | None) -> float:
    """Return the sum over a chunk's tokens of the KV tokens each attends to, its own included."""
    if window is None or past + tokens <= window:
        return tokens * past + tokens * (tokens + 1) / 2
    growing = max(0, window - past)
    return growing * past + growing * (growing + 1) / 2 + (tokens - growing) * float(window)
