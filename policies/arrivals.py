"""Requests of a workload as sequences, one by one as they arrive."""

from __future__ import annotations

from bisect import bisect_right
from math import inf
from typing import TYPE_CHECKING

from policies.sequence import Sequence

if TYPE_CHECKING:
    from traces.workload import HashIds, Workload


class Arrivals:
    """A cursor over a workload: makes each sequence only when its time has come."""

    def __init__(self, workload: Workload, block_size: int) -> None:
        self._arrival_s = workload.arrival_s.tolist()
        self._prompt_tokens = workload.prompt_tokens.tolist()
        self._output_tokens = workload.output_tokens.tolist()
        self._hash_ids = workload.hash_ids
        self._block_size = block_size
        self._next = 0

    def __len__(self) -> int:
        return len(self._arrival_s)

    @property
    def next_s(self) -> float:
        """When the next request arrives, infinity after the last."""
        return self._arrival_s[self._next] if self._next < len(self._arrival_s) else inf

    def ahead_s(self, count: int) -> float:
        """Return when the ``count``-th of the next requests arrives, infinity after the last."""
        index = self._next + count - 1
        return self._arrival_s[index] if index < len(self) else inf

    def due(self, now_s: float) -> list[Sequence]:
        """Return the sequences that have arrived by ``now_s``, in order, and move on."""
        first = self._next
        self._next = bisect_right(self._arrival_s, now_s, first)
        return [self._sequence(request) for request in range(first, self._next)]

    def _sequence(self, request: int) -> Sequence:
        return Sequence(
            request,
            arrival_s=self._arrival_s[request],
            prompt_tokens=self._prompt_tokens[request],
            output_tokens=self._output_tokens[request],
            block_hashes=() if self._hash_ids is None else self._block_hashes(self._hash_ids, request),
        )

    def _block_hashes(self, hash_ids: HashIds, request: int) -> list[int]:
        hashes: list[int] = hash_ids.of_blocks(request, self._prompt_tokens[request], self._block_size).tolist()
        return hashes
