"""What a cost model may read of a batch: its aggregates, each in O(1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol


class BatchLike(Protocol):
    """What a cost model reads of a batch (see :class:`policies.batch.Batch`)."""

    @property
    def chunks(self) -> Sequence[Any]:
        """The prefill slices, each with ``tokens`` new prompt tokens after ``past`` whose KV is there."""

    @property
    def prefill_tokens(self) -> int:
        """Tokens of the chunks."""

    @property
    def decodes(self) -> int:
        """Sequences that decode one token."""

    @property
    def outputs(self) -> int:
        """Tokens sampled."""

    @property
    def decode_context_sum(self) -> int:
        """KV tokens that the decodes attend to, their own included."""

    @property
    def decode_context_max(self) -> int:
        """The longest of those contexts."""


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


def decode_tokens_read(batch: BatchLike, window: int | None) -> int:
    """Return the KV tokens that the decodes read; with a window at most ``window`` each.

    From the sum of contexts alone this is exact where all contexts lie on one side of the window, else an
    upper bound.
    """
    if window is None or batch.decode_context_max <= window:
        return batch.decode_context_sum
    return min(batch.decode_context_sum, batch.decodes * window)


def chunk_pairs(tokens: int, past: int, window: int | None) -> float:
    """Return the sum over a chunk's tokens of the KV tokens each attends to, its own included."""
    if window is None or past + tokens <= window:
        return tokens * past + tokens * (tokens + 1) / 2
    growing = max(0, window - past)
    return growing * past + growing * (growing + 1) / 2 + (tokens - growing) * float(window)
