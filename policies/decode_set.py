"""The sequences that decode together, advanced by one clock."""

from __future__ import annotations

from collections.abc import Iterator
from math import nan

from policies.max_heap import MaxHeap
from policies.sequence import Sequence

Gap = tuple[float, int]
"""A time between two tokens of the same sequence, in seconds, and for how many sequences it holds."""


class DecodeSet:
    """Decoding sequences that get one token each whenever the set runs.

    Advancing the set costs by what changes: its clock ticks once for all members. A member's context, its
    output, the tick at which it ends and the ticks at which it crosses a block border follow from the tick at
    which it joined. The sum of contexts is kept up to date, the longest one in a heap.

    The context of a decode is the KV tokens that it attends to, its own included.
    """

    __slots__ = (
        "_block_size",
        "_borders",
        "_ending",
        "_fresh",
        "_latest",
        "_longest",
        "_members",
        "clock",
        "context_sum",
        "last_token_s",
    )

    def __init__(self, block_size: int) -> None:
        self._block_size = block_size
        self._members: dict[Sequence, None] = {}
        self._borders: dict[int, dict[Sequence, None]] = {}
        self._ending: dict[int, dict[Sequence, None]] = {}
        self._fresh: dict[Sequence, float] = {}
        self._longest = MaxHeap(self._lead)
        self._latest = MaxHeap(self._rank)
        self.clock = 0
        self.context_sum = 0
        self.last_token_s = nan

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[Sequence]:
        return iter(self._members)

    def _lead(self, sequence: Sequence) -> int | None:
        return sequence.computed - sequence.joined if sequence.group is self else None

    def _rank(self, sequence: Sequence) -> int | None:
        return sequence.rank if sequence.group is self else None

    @property
    def context_max(self) -> int:
        """Context of the longest member, 0 for an empty set."""
        longest = self._longest.top()
        return 0 if longest is None else longest.computed - longest.joined + self.clock + 1

    @property
    def latest(self) -> Sequence | None:
        """The member of the highest rank (the lowest priority)."""
        return self._latest.top()

    def by_rank(self) -> list[Sequence]:
        """Return the members in order of priority; O(n log n)."""
        return sorted(self._members, key=lambda sequence: sequence.rank)

    def crossing(self) -> list[Sequence]:
        """Return the members whose next token needs a block that they do not hold yet."""
        return list(self._borders.get(self.clock % self._block_size, ()))

    def add(self, sequence: Sequence) -> None:
        """Let a sequence join whose first output token is out (at its ``last_token_s``)."""
        if not self._members:
            self.last_token_s = sequence.last_token_s
        elif sequence.last_token_s != self.last_token_s:
            self._fresh[sequence] = sequence.last_token_s
        sequence.group = self
        sequence.joined = self.clock
        self._members[sequence] = None
        self._borders.setdefault((self.clock - sequence.computed) % self._block_size, {})[sequence] = None
        self._ending.setdefault(self._end(sequence), {})[sequence] = None
        self._longest.push(sequence.computed - self.clock, sequence)
        self._latest.push(sequence.rank, sequence)
        self.context_sum += sequence.computed + 1

    @staticmethod
    def _end(sequence: Sequence) -> int:
        return sequence.joined + sequence.output_tokens - sequence.generated

    def remove(self, sequence: Sequence) -> None:
        """Let a member leave before its end, its counts and its last token's time brought up to date."""
        ending = self._ending[self._end(sequence)]
        del ending[sequence]
        if not ending:
            del self._ending[self._end(sequence)]
        self._leave(sequence)

    def _leave(self, sequence: Sequence) -> None:
        del self._members[sequence]
        border = (sequence.joined - sequence.computed) % self._block_size
        del self._borders[border][sequence]
        ticks = self.clock - sequence.joined
        sequence.computed += ticks
        sequence.generated += ticks
        sequence.last_token_s = self._fresh.pop(sequence, self.last_token_s)
        sequence.group = None
        self.context_sum -= sequence.computed + 1
        self._longest.compact(self._members, len(self._members))
        self._latest.compact(self._members, len(self._members))

    def advance(self, now_s: float) -> tuple[list[Sequence], list[Gap]]:
        """Give every member one token at ``now_s``; return those that ended, and the gaps it closed."""
        gaps = self._gaps(now_s)
        self.clock += 1
        self.context_sum += len(self._members)
        self.last_token_s = now_s
        ended = list(self._ending.pop(self.clock, ()))
        for sequence in ended:
            self._leave(sequence)
        return ended, gaps

    def _gaps(self, now_s: float) -> list[Gap]:
        steady = len(self._members) - len(self._fresh)
        gaps = [(now_s - self.last_token_s, steady)] if steady else []
        if self._fresh:
            counts: dict[float, int] = {}
            for last_token_s in self._fresh.values():
                counts[last_token_s] = counts.get(last_token_s, 0) + 1
            gaps += [(now_s - last_token_s, count) for last_token_s, count in counts.items()]
            self._fresh.clear()
        return gaps

    def merged(self, other: DecodeSet) -> DecodeSet:
        """Return one set with the members of both; O(smaller)."""
        large, small = (self, other) if len(self) >= len(other) else (other, self)
        for sequence in list(small):
            small.remove(sequence)
            large.add(sequence)
        return large

    def split(self, count: int) -> DecodeSet:
        """Move the first ``count`` members in order of priority into a set of their own; O(n log n)."""
        first = DecodeSet(self._block_size)
        for sequence in self.by_rank()[:count]:
            self.remove(sequence)
            first.add(sequence)
        return first
