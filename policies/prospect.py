"""A batch as it would be with some prompt tokens more."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator

from policies.batch import Batch, Chunk
from policies.sequence import Sequence


class Prospect:
    """What a cost model is asked about before prompts join a batch (see :class:`policies.costs.BatchLike`).

    Parameters
    ----------
    batch
        The decodes that are in it.
    prompts
        Whose chunks may join, in turn, as far as they are asked for: all but the last whole.
    """

    __slots__ = (
        "_ends",
        "_prompts",
        "_wholes",
        "chunks",
        "decode_context_max",
        "decode_context_sum",
        "decodes",
        "outputs",
        "prefill_tokens",
    )

    def __init__(self, batch: Batch, prompts: Iterator[Sequence]) -> None:
        self.decodes = self.outputs = batch.decodes
        self.decode_context_sum = batch.decode_context_sum
        self.decode_context_max = batch.decode_context_max
        self.prefill_tokens = 0
        self.chunks: list[Chunk] = []
        self._prompts = prompts
        self._wholes: list[Chunk] = []
        self._ends: list[int] = []

    @property
    def tokens(self) -> int:
        """Tokens that run through the model."""
        return self.prefill_tokens + self.decodes

    def take(self, tokens: int) -> int:
        """Let it hold so many prompt tokens, or all where there are no more; return how many."""
        ends, wholes = self._ends, self._wholes
        reach = ends[-1] if ends else 0
        while reach < tokens and (sequence := next(self._prompts, None)) is not None:
            wholes.append(Chunk(sequence, sequence.left, sequence.computed))
            reach += sequence.left
            ends.append(reach)
        tokens = min(tokens, reach)
        last = bisect_left(ends, tokens)
        if last == len(ends):
            return 0
        self.chunks = wholes[: last + 1] if tokens else []
        over = ends[last] - tokens
        if over and tokens:
            sequence, whole, past = wholes[last]
            self.chunks[last] = Chunk(sequence, whole - over, past)
        self.outputs = self.decodes + last + (not over) if tokens else self.decodes
        self.prefill_tokens = tokens
        return tokens
