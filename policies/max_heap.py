"""A heap that forgets lazily."""

from __future__ import annotations

from collections.abc import Callable, Collection
from heapq import heapify, heappop, heappush

from policies.sequence import Sequence

SPARE = 64


class MaxHeap:
    """The member with the largest key, where members leave without telling.

    A member's key stays as it is while it is one. New members wait unsorted until the largest is asked for, so that
    nobody pays who never asks. An entry that does not match its key any more is dropped when it comes to the top.
    Push is O(1); top is amortised O(log n) for each member pushed.

    Parameters
    ----------
    members
        Those who have not left, a view that is always up to date.
    key_of
        Returns a member's key.
    """

    __slots__ = ("_entries", "_key_of", "_members", "_new")

    def __init__(self, members: Collection[Sequence], key_of: Callable[[Sequence], int]) -> None:
        self._members, self._key_of = members, key_of
        self._entries: list[tuple[int, int, Sequence]] = []
        self._new: list[Sequence] = []

    def push(self, sequence: Sequence) -> None:
        """Enter a member; of two with the same key the smaller request id comes first."""
        self._new.append(sequence)
        if len(self._new) > 2 * len(self._members) + SPARE:
            self.rebuild()

    def top(self) -> Sequence | None:
        """Return the member with the largest key, or None where there is none."""
        if self._new:
            self._sort_in()
        entries, members = self._entries, self._members
        while entries:
            key, _, sequence = entries[0]
            if sequence in members and self._key_of(sequence) == -key:
                return sequence
            heappop(entries)
        return None

    def _sort_in(self) -> None:
        for member in self._new:
            if member in self._members:
                heappush(self._entries, self._entry(member))
        self._new.clear()
        if len(self._entries) > 2 * len(self._members) + SPARE:
            self.rebuild()

    def rebuild(self) -> None:
        """Make it anew from the members."""
        self._new.clear()
        self._entries = [self._entry(member) for member in self._members]
        heapify(self._entries)

    def _entry(self, member: Sequence) -> tuple[int, int, Sequence]:
        return -self._key_of(member), member.request_id, member
