"""The decodes that are ready, as the few sets in which they came back from the pipeline."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from math import inf

from policies.decode_set import DecodeSet, rank_of
from policies.sequence import Sequence

MOST_OTHERS = 8


class ReadyDecodes:
    """Decoding sequences that are in no batch in flight.

    With a pipeline, batches come back while others wait for their turn. Their sets are kept apart, and a new batch
    starts from the one that it has most in common with: only sequences that differ change sets, so that
    micro-batches which stay the same cost nothing, however many sequences they hold.
    """

    __slots__ = ("_block_size", "_first", "_others", "_spare")

    def __init__(self, block_size: int) -> None:
        self._block_size = block_size
        self._first = DecodeSet(block_size)
        self._others: list[DecodeSet] = []
        self._spare: DecodeSet | None = None

    @property
    def size(self) -> int:
        """Number of ready decodes."""
        return self._first.size + sum([each.size for each in self._others]) if self._others else self._first.size

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[Sequence]:
        return chain(self._first, *self._others)

    def __contains__(self, sequence: Sequence) -> bool:
        return any(sequence.group is each for each in self._sets())

    def _sets(self) -> list[DecodeSet]:
        return [self._first, *self._others]

    @property
    def latest(self) -> Sequence | None:
        """The one of the highest rank (the lowest priority)."""
        return max(filter(None, [each.latest for each in self._sets()]), key=rank_of, default=None)

    def by_rank(self) -> list[Sequence]:
        """Return all in order of priority; O(n log n)."""
        return sorted(self, key=rank_of)

    def add(self, sequence: Sequence) -> None:
        """Let a sequence join whose first output token is out."""
        self._first.add(sequence)

    def put_back(self, group: DecodeSet) -> None:
        """Take back the decodes of a batch."""
        if not self._first.size:
            self._first, self._spare = group, self._first
        elif group.size:
            self._others.append(group)
            if len(self._others) > MOST_OTHERS:
                smallest, next_one, *self._others = sorted(self._others, key=len)
                _pour(smallest, next_one)
                self._others.append(next_one)
        else:
            self._spare = group

    def take(self, count: int) -> DecodeSet:
        """Return a set of the first ``count`` in order of priority, or of all where there are no more."""
        if self._others or self._first.size > count:
            self._gather(count)
        taken = self._first
        if self._others:
            self._first = self._others.pop()
        elif self._spare is None:
            self._first = DecodeSet(self._block_size)
        else:
            self._first, self._spare = self._spare, None
        return taken

    def _gather(self, count: int) -> None:
        """Make the first set the one to take."""
        sets = [each for each in self._sets() if each.size]
        if self.size <= count:
            chosen, self._others = max(sets, key=len, default=self._first), []
            for each in sets:
                if each is not chosen:
                    _pour(each, chosen)
        else:
            chosen = self._nearest(sets, count)
            self._others = [each for each in sets if each is not chosen] or [DecodeSet(self._block_size)]
            self._exchange(chosen, count)
        self._first = chosen

    def _nearest(self, sets: list[DecodeSet], count: int) -> DecodeSet:
        """Return the set to start from: about as large, with the oldest sequence; a new one where none is."""
        alike = [each for each in sets if count <= 2 * each.size <= 4 * count]
        return min(alike, key=_oldest_rank) if alike else DecodeSet(self._block_size)

    def _exchange(self, chosen: DecodeSet, count: int) -> None:
        """Exchange sequences with the other sets until ``chosen`` holds the first ``count`` of all."""
        while chosen.size > count:
            _move(chosen.latest, self._others[0])
        while True:
            senior = min(self._others, key=_oldest_rank)
            if chosen.size == count:
                latest = chosen.latest
                if latest is None or latest.rank < _oldest_rank(senior):
                    return
                _move(latest, senior)
            _move(senior.earliest, chosen)


def _oldest_rank(decodes: DecodeSet) -> float:
    earliest = decodes.earliest
    return inf if earliest is None else earliest.rank


def _pour(small: DecodeSet, large: DecodeSet) -> None:
    for sequence in list(small):
        _move(sequence, large)


def _move(sequence: Sequence | None, to: DecodeSet) -> None:
    assert sequence is not None
    assert sequence.group is not None
    sequence.group.remove(sequence)
    to.add(sequence)
