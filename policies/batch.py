"""What one iteration runs."""

from __future__ import annotations

from typing import NamedTuple

from policies.decode_set import DecodeSet, Gap
from policies.sequence import Sequence


class Chunk(NamedTuple):
    """A prefill slice: ``tokens`` of a sequence's prompt, after ``past`` tokens whose KV is there already."""

    sequence: Sequence
    tokens: int
    past: int

    @property
    def ends_prompt(self) -> bool:
        """Whether this chunk runs the last prompt token, and so yields an output token."""
        return self.past + self.tokens == self.sequence.target


class Batch:
    """What one iteration runs: prefill chunks, and decodes of one token each.

    It carries its aggregates, so that nobody has to walk over the decodes to know its cost; the decodes
    themselves are listed only when asked, while the batch is in flight.

    Attributes
    ----------
    chunks
        The prefill slices, in the order in which they were scheduled.
    prefill_tokens, decodes, outputs
        Tokens of the chunks; number of decodes; tokens sampled (decodes and prompts that end here).
    decode_context_sum, decode_context_max
        Over the decodes: KV tokens attended to, their own token included.
    preemptions
        Sequences that were preempted since the batch before.
    """

    __slots__ = (
        "chunks",
        "decode_context_max",
        "decode_context_sum",
        "decodes",
        "group",
        "outputs",
        "preemptions",
        "prefill_tokens",
    )

    def __init__(self) -> None:
        self.chunks: list[Chunk] = []
        self.group: DecodeSet | None = None
        self.prefill_tokens = 0
        self.decodes = 0
        self.outputs = 0
        self.decode_context_sum = 0
        self.decode_context_max = 0
        self.preemptions = 0

    def __repr__(self) -> str:
        return f"Batch(chunks={[chunk.tokens for chunk in self.chunks]}, decodes={self.decodes})"

    @property
    def tokens(self) -> int:
        """Tokens that run through the model."""
        return self.prefill_tokens + self.decodes

    @property
    def sequences(self) -> int:
        """Sequences with a slice in this batch."""
        return len(self.chunks) + self.decodes

    @property
    def prefill_context_sum(self) -> int:
        """KV tokens that the chunks find in the cache, summed."""
        return sum(chunk.past for chunk in self.chunks)

    def prefill(self, sequence: Sequence, tokens: int) -> None:
        """Add a chunk of ``tokens`` tokens."""
        past = sequence.computed
        self.chunks.append(Chunk(sequence, tokens, past))
        self.prefill_tokens += tokens
        self.outputs += past + tokens == sequence.target

    def decode(self, group: DecodeSet) -> None:
        """Add one token for every member of ``group``."""
        decodes = group.size
        if not decodes:
            return
        self.group = group
        self.decodes = decodes
        self.outputs += decodes
        self.decode_context_sum = group.context_sum
        self.decode_context_max = group.context_max

    def decode_sequences(self) -> list[Sequence]:
        """List the decodes in order of priority (only while the batch is in flight)."""
        return [] if self.group is None else self.group.by_rank()


class Completion:
    """What came out of a batch.

    Attributes
    ----------
    started, finished
        Sequences that got their first output token; sequences that got their last, in order of priority.
    gaps
        Times between two tokens of a sequence that ended with this batch, grouped.
    """

    __slots__ = ("finished", "gaps", "started")

    def __init__(self) -> None:
        self.started: list[Sequence] = []
        self.finished: list[Sequence] = []
        self.gaps: list[Gap] = []
