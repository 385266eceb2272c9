"""Requests of a workload as sequences, one by one as they arrive."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from policies.sequence import Sequence

if TYPE_CHECKING:
    from traces.workload import Workload


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
    def next_s(self) -> float | None:
        """When the next request arrives, or None after the last."""
        return self._arrival_s[self._next] if self._next < len(self) else None

    def ahead_s(self, count: int) -> float:
        """Return when the ``count``-th of the next requests arrives, infinity after the last."""
        index = self._next + count - 1
        return self._arrival_s[index] if index < len(self) else inf

    def due(self, now_s: float) -> list[Sequence]:
        """Return the sequences that have arrived by ``now_s``, in order, and move on."""
        first = self._next
        while self._next < len(self) and self._arrival_s[self._next] <= now_s:
            self._next += 1
        return [self._sequence(request) for request in range(first, self._next)]

    def _sequence(self, request: int) -> Sequence:
        return Sequence(
            request,
            arrival_s=self._arrival_s[request],
            prompt_tokens=self._prompt_tokens[request],
            output_tokens=self._output_tokens[request],
            block_hashes=self._block_hashes(request),
        )

    def _block_hashes(self, request: int) -> list[int]:
        if self._hash_ids is None:
            return []
        hashes = self._hash_ids.of_blocks(request, self._prompt_tokens[request], self._block_size)
        return list(map(int, hashes))
