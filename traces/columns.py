"""What a workload file holds, before its clock is made relative."""

from __future__ import annotations

from dataclasses import dataclass, replace
from os import PathLike

import numpy as np

from traces.errors import InputError
from traces.formats import TICKS_PER_S, Clock
from traces.workload import FloatColumn, HashIds, IntColumn, Workload

MAX_REQUESTS = 50_000_000
MAX_HASHES = 500_000_000
MAX_LENGTH = 2**31 - 1
HASH_BLOCK_SIZES = (512, 256, 128, 64, 32, 16)
EPOCH_S = 1e8
MAX_TIME_S = 1e11


def check_size(requests: int, hashes: int, where: str | PathLike[str]) -> None:
    """Raise :class:`InputError` if a workload of this size would fill the memory of a small machine."""
    for count, most, what in ((requests, MAX_REQUESTS, "requests"), (hashes, MAX_HASHES, "prefix hashes")):
        if count > most:
            raise InputError(f"more than {most:,} {what}", where=where, expected="a part of the trace")


@dataclass(frozen=True, kw_only=True, eq=False)
class Columns:
    """The columns of a file, row by row as they stand in it.

    Attributes
    ----------
    clock
        What ``time`` counts.
    time
        int64 [requests] for clocks "timestamp" (nanoseconds since 1970) and "ns", float64 [requests] in the
        clock's unit otherwise; None where the file has no arrival times.
    prompt_tokens, output_tokens
        int64 [requests].
    hash_offsets, hash_values
        The prefix hashes of row i are ``hash_values[hash_offsets[i]:hash_offsets[i + 1]]``.
    """

    clock: Clock
    time: IntColumn | FloatColumn | None
    prompt_tokens: IntColumn
    output_tokens: IntColumn
    hash_offsets: IntColumn | None = None
    hash_values: IntColumn | None = None

    def sound(self, *, ordered: bool) -> bool:
        """Whether every row is one a workload may have, and their times ascend if ``ordered``."""
        lengths = all(
            len(column) and column.min() >= 1 and column.max() <= MAX_LENGTH
            for column in (self.prompt_tokens, self.output_tokens)
        )
        return lengths and self._times_sound(ordered) and self._hashes_sound()

    def with_outputs(self) -> Columns:
        """Return the same columns with outputs of no token as outputs of one."""
        return replace(self, output_tokens=np.where(self.output_tokens == 0, 1, self.output_tokens))

    def _times_sound(self, ordered: bool) -> bool:
        if self.time is None:
            return True
        within = (self.time >= 0) & (self.time <= MAX_TIME_S * TICKS_PER_S[self.clock])
        if self.clock != "timestamp" and not within.all():
            return False
        return not ordered or bool((np.diff(self.time) >= 0).all())

    def _hashes_sound(self) -> bool:
        if self.hash_offsets is None:
            return True
        return _fits(np.diff(self.hash_offsets), self.prompt_tokens, HASH_BLOCK_SIZES[-1])

    def workload(self, name: str) -> Workload:
        """Return the workload in order of arrival, ties in the file's order."""
        made = Workload(
            name=name,
            arrival_s=self._arrival_s(),
            prompt_tokens=self.prompt_tokens,
            output_tokens=self.output_tokens,
            hash_ids=self._hash_ids(),
            timed=self.time is not None,
        )
        if self.time is None or (np.diff(self.time) >= 0).all():
            return made
        return made.take(np.argsort(self.time, kind="stable"))

    def _arrival_s(self) -> FloatColumn:
        if self.time is None:
            return np.zeros(len(self.prompt_tokens))
        first = self.time.min()
        ticks_per_s = TICKS_PER_S[self.clock]
        counted_from_1970 = self.clock == "timestamp" or first / ticks_per_s >= EPOCH_S
        since = self.time - first if counted_from_1970 else self.time
        return np.asarray(since / ticks_per_s, dtype=np.float64)

    def _hash_ids(self) -> HashIds | None:
        if self.hash_offsets is None or self.hash_values is None:
            return None
        counts = np.diff(self.hash_offsets)
        size = next(size for size in HASH_BLOCK_SIZES if _fits(counts, self.prompt_tokens, size))
        return HashIds(offsets=self.hash_offsets, values=self.hash_values, block_size=size)


def _fits(counts: IntColumn, prompt_tokens: IntColumn, size: int) -> bool:
    return bool((counts <= -(-prompt_tokens // size)).all())
