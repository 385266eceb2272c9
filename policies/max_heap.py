"""A heap that forgets lazily."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from heapq import heapify, heappop, heappush

from policies.sequence import Sequence


class MaxHeap:
    """The member with the largest key, where members leave without telling.

    ``key_of`` returns a member's key, or None once it has left; an entry that does not match it any more is
    dropped when it comes to the top. Push is O(log n); top is amortised O(log n).
    """

    __slots__ = ("_entries", "_key_of")

    def __init__(self, key_of: Callable[[Sequence], int | None]) -> None:
        self._key_of = key_of
        self._entries: list[tuple[int, int, Sequence]] = []

    def push(self, key: int, sequence: Sequence) -> None:
        """Enter a member under its key; ties go to the smaller request id."""
        heappush(self._entries, (-key, sequence.request_id, sequence))

    def top(self) -> Sequence | None:
        """Return the member with the largest key, or None where there is none."""
        entries = self._entries
        while entries:
            key, _, sequence = entries[0]
            if self._key_of(sequence) == -key:
                return sequence
            heappop(entries)
        return None

    def compact(self, members: Iterable[Sequence], size: int) -> None:
        """Rebuild from ``members`` once the heap holds more than twice their number."""
        if len(self._entries) <= 2 * size + 64:
            return
        self._entries = [
            (-key, member.request_id, member) for member in members if (key := self._key_of(member)) is not None
        ]
        heapify(self._entries)
