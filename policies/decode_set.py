"""The sequences that decode together, advanced by one clock."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from heapq import heappop, heappush
from math import nan
from operator import attrgetter

from policies.max_heap import SPARE, MaxHeap
from policies.sequence import Sequence

Gap = tuple[float, int]
"""A time between two tokens of the same sequence, in seconds, and for how many sequences it holds."""
rank_of = attrgetter("rank")


class DecodeSet:
    """Decoding sequences that get one token each whenever the set runs.

    Advancing the set costs by what changes: its clock ticks once for all members. A member's context, its
    output, the tick at which it ends and the ticks at which it crosses a block border follow from the tick at
    which it joined. The sum of contexts is kept up to date, the longest one in a heap.

    The context of a decode is the KV tokens that it attends to, its own included.

    Attributes
    ----------
    size
        Number of members.
    clock
        Ticks so far.
    context_sum
        Of all members.
    last_token_s
        When the last tick was.
    """

    __slots__ = (
        "_block_size",
        "_borders",
        "_earliest",
        "_ending",
        "_ends",
        "_fresh",
        "_latest",
        "_lead",
        "_leader",
        "_longest",
        "_members",
        "clock",
        "context_sum",
        "last_token_s",
        "size",
    )

    def __init__(self, block_size: int) -> None:
        self._block_size = block_size
        self._members: dict[Sequence, None] = {}
        self._borders: list[dict[Sequence, None]] = [{} for _ in range(block_size)]
        self._ending: dict[int, dict[Sequence, None]] = {}
        self._ends: list[int] = []
        self._fresh: dict[Sequence, float] = {}
        self._longest = MaxHeap(self._members, _lead)
        self._latest = MaxHeap(self._members, rank_of)
        self._earliest: MaxHeap | None = None
        self._leader: Sequence | None = None
        self._lead = 0
        self.size = 0
        self.clock = 0
        self.context_sum = 0
        self.last_token_s = nan

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[Sequence]:
        return iter(self._members)

    @property
    def context_max(self) -> int:
        """Context of the longest member, 0 for an empty set."""
        if self._leader is None:
            self._leader = self._longest.top()
            if self._leader is None:
                return 0
            self._lead = _lead(self._leader)
        return self._lead + self.clock + 1

    @property
    def latest(self) -> Sequence | None:
        """The member of the highest rank (the lowest priority)."""
        return self._latest.top()

    @property
    def earliest(self) -> Sequence | None:
        """The member of the lowest rank (the highest priority)."""
        if self._earliest is None:
            self._earliest = MaxHeap(self._members, _seniority)
            self._earliest.rebuild()
        return self._earliest.top()

    @property
    def oldest_token_s(self) -> float:
        """When the member that waits for its next token longest got its last one; NaN for an empty set."""
        if not self._fresh:
            return self.last_token_s
        oldest_s = min(self._fresh.values())
        return oldest_s if len(self._fresh) == self.size else min(oldest_s, self.last_token_s)

    @property
    def ticks_left(self) -> int:
        """Ticks until the first member ends; ValueError for an empty set."""
        ends = self._ends
        while ends and ends[0] not in self._ending:
            heappop(ends)
        if not ends:
            raise ValueError("an empty set has no end")
        return ends[0] - self.clock

    def by_rank(self) -> list[Sequence]:
        """Return the members in order of priority; O(n log n)."""
        return sorted(self._members, key=rank_of)

    def crossing(self) -> Collection[Sequence]:
        """Return the members whose next token needs a block that they do not hold yet, as they are now."""
        return self._borders[self.clock % self._block_size].keys()

    def blocks_due(self, ticks: int) -> int:
        """Return how many new blocks the next ``ticks`` ticks need after this one."""
        return sum(len(self._borders[(self.clock + tick) % self._block_size]) for tick in range(1, ticks + 1))

    def ticks_within(self, blocks: int, most: int) -> int:
        """Return how many of the ``most`` ticks after the next need no more than ``blocks`` new blocks together."""
        if blocks >= self.size * -(-most // self._block_size):
            return most
        for tick in range(1, most + 1):
            blocks -= len(self._borders[(self.clock + tick) % self._block_size])
            if blocks < 0:
                return tick - 1
        return most

    def add(self, sequence: Sequence) -> None:
        """Let a sequence join whose first output token is out (at its ``last_token_s``)."""
        clock, computed = self.clock, sequence.computed
        if not self.size:
            self.last_token_s = sequence.last_token_s
        elif sequence.last_token_s != self.last_token_s:
            self._fresh[sequence] = sequence.last_token_s
        sequence.group = self
        sequence.joined = clock
        self._members[sequence] = None
        self.size += 1
        self._borders[(clock - computed) % self._block_size][sequence] = None
        end = clock + sequence.output_tokens - sequence.generated
        ending = self._ending.get(end)
        if ending is None:
            self._ending[end] = {sequence: None}
            self._note_end(end)
        else:
            ending[sequence] = None
        self._longest.push(sequence)
        self._latest.push(sequence)
        if self._earliest is not None:
            self._earliest.push(sequence)
        if self._leader is not None and computed - clock > self._lead:
            self._leader, self._lead = sequence, computed - clock
        self.context_sum += computed + 1

    def _note_end(self, tick: int) -> None:
        heappush(self._ends, tick)
        if len(self._ends) > 2 * len(self._ending) + SPARE:
            self._ends = sorted(self._ending)

    def remove(self, sequence: Sequence) -> None:
        """Let a member leave before its end, its counts and its last token's time brought up to date."""
        end = sequence.joined + sequence.output_tokens - sequence.generated
        ending = self._ending[end]
        del ending[sequence]
        if not ending:
            del self._ending[end]
        self._leave(sequence)

    def _leave(self, sequence: Sequence) -> None:
        del self._members[sequence]
        self.size -= 1
        del self._borders[(sequence.joined - sequence.computed) % self._block_size][sequence]
        ticks = self.clock - sequence.joined
        sequence.computed += ticks
        sequence.generated += ticks
        sequence.last_token_s = self._fresh.pop(sequence, self.last_token_s)
        sequence.group = None
        self.context_sum -= sequence.computed + 1
        if sequence is self._leader:
            self._leader = None

    def advance(self, now_s: float) -> tuple[list[Sequence], list[Gap]]:
        """Give every member one token at ``now_s``; return those that ended, and the gaps it closed."""
        size = self.size
        gaps = self._gaps(now_s) if self._fresh else [(now_s - self.last_token_s, size)] if size else []
        self.clock = clock = self.clock + 1
        self.context_sum += size
        self.last_token_s = now_s
        if clock not in self._ending:
            return [], gaps
        ending, ends = self._ending.pop(clock), self._ends
        while ends and ends[0] <= clock:
            heappop(ends)
        ended = list(ending)
        for sequence in ended:
            self._leave(sequence)
        return ended, gaps

    def tick(self, now_s: float, ticks: int = 1) -> None:
        """Give every member ``ticks`` tokens, the last at ``now_s``, where none ends and each has had one since it
        joined."""
        self.clock += ticks
        self.context_sum += ticks * self.size
        self.last_token_s = now_s

    def _gaps(self, now_s: float) -> list[Gap]:
        steady = self.size - len(self._fresh)
        gaps = [(now_s - self.last_token_s, steady)] if steady else []
        counts: dict[float, int] = {}
        for last_token_s in self._fresh.values():
            counts[last_token_s] = counts.get(last_token_s, 0) + 1
        gaps += [(now_s - last_token_s, count) for last_token_s, count in counts.items()]
        self._fresh.clear()
        return gaps


def _lead(sequence: Sequence) -> int:
    """Return a member's computed tokens less the clock when it joined: the largest has the longest context."""
    return sequence.computed - sequence.joined


def _seniority(sequence: Sequence) -> int:
    return -sequence.rank
