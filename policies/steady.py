"""What goes on as it is while nothing happens."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Sequence as Listing

from policies.batch import Batch
from policies.blocks import BlockPool
from policies.decode_set import DecodeSet, Gap
from policies.ready_decodes import ReadyDecodes
from policies.sequence import Sequence


class Steady:
    """A policy that knows how often in a row it would schedule a batch, so that all these times can be one step.

    Attributes
    ----------
    prefilling, decodes, incoming, pool, stages
        As in :class:`policies.policy.Policy`.
    """

    prefilling: list[Sequence]
    decodes: ReadyDecodes
    pool: BlockPool
    stages: int
    incoming: deque[Sequence]
    _held: dict[Sequence, None]

    def repeats(self, batch: Batch) -> int:
        """How many times in a row ``batch`` would be scheduled, which just was, if no request came or went.

        1, but where it is all that there is to do: every resident runs in it, none was preempted for it, none is held,
        whose blocks come free at any time, and whoever waits did not find a seat or blocks, which running only makes
        fewer, or tokens in the budget (who brings its KV along needs none, and may have waited for an older request
        that is in the batch now). Then it is until the first of its sequences ends, the next block is not there, or a
        prompt comes to its last chunk.
        """
        if batch.preemptions or self.prefilling or self.decodes.size or self._held or self.stages > 1:
            return 1
        most = sys.maxsize
        if batch.chunks:
            most = 1 if self.incoming else self._chunk_repeats(batch)
        if batch.group is not None and most > 1:
            most = min(most, batch.group.ticks_left)
        return 1 + self._times_with_blocks(batch, most - 1) if most > 1 else 1

    def _chunk_repeats(self, batch: Batch) -> int:  # noqa: ARG002
        """How many times in a row the chunks of ``batch`` would be scheduled, each after the KV of the one before."""
        return 1

    def _times_with_blocks(self, batch: Batch, times: int) -> int:
        """How many of ``times`` more times that ``batch`` runs find the blocks that they need."""
        return times if batch.group is None else batch.group.ticks_within(self.pool.free, times)

    def blocks_ahead(self, batch: Batch, times: int) -> int:
        """How many KV blocks ``batch``, just scheduled, takes when it is scheduled ``times`` more times."""
        return 0 if batch.group is None else batch.group.blocks_due(times)

    def repeat(self, batch: Batch, ends_s: Listing[float]) -> tuple[list[Gap], list[int]]:
        """Take ``batch`` back all but the last of the times that it ran; ``complete`` takes that.

        Parameters
        ----------
        ends_s
            When its tokens came out, the last time included: up to :meth:`repeats` times, at least twice.

        Returns
        -------
        tuple
            The gaps that ended with the first time, and the blocks in use when each of the others had been scheduled.
        """
        gaps = [] if batch.group is None else batch.group.advance(ends_s[0])[1]
        return gaps, self._run_on(batch, ends_s[1:-1])

    def _run_on(self, batch: Batch, ends_s: Listing[float]) -> list[int]:
        """Let ``batch``, which is over once, be over again at each of ``ends_s``; return the blocks in use then."""
        group, chunks = batch.group, batch.chunks
        used = []
        for end_s in (None, *ends_s):
            if end_s is not None and group is not None:
                group.tick(end_s)
            for sequence, tokens, _ in chunks:
                sequence.computed += tokens
            used.append(self._grown(batch))
        return used

    def _grown(self, batch: Batch) -> int:
        """Return the blocks in use once ``batch`` has what it needs to run again."""
        group = batch.group
        if group is not None and group.crossing():
            self._grow(group)
        return self.pool.used

    def _grow(self, group: DecodeSet) -> None:
        """Take the blocks that the next token of each decode in ``group`` needs: none where all are reserved."""
