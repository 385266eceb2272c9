"""What goes on as it is while nothing happens."""

from __future__ import annotations

import sys
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
    prefilling, decodes, pool, stages
        As in :class:`policies.policy.Policy`.
    """

    prefilling: list[Sequence]
    decodes: ReadyDecodes
    pool: BlockPool
    stages: int

    def repeats(self, batch: Batch) -> int:
        """How many times in a row ``batch`` would be scheduled, which just was, if no request came or went.

        1, but where it is all that there is to do: every resident runs in it, none was preempted for it, and whoever
        waits did not find a seat or blocks, which a decode only makes fewer, or tokens in the budget. Then it is until
        the first of its sequences ends, the next block is not there, or a prompt comes to its last chunk.
        """
        if batch.preemptions or self.prefilling or self.decodes.size or self.stages > 1:
            return 1
        most = self._chunk_repeats(batch) if batch.chunks else sys.maxsize
        group = batch.group
        if group is None or most <= 1:
            return max(most, 1)
        most = min(most, group.ticks_left)
        return most if most == 1 else 1 + self._ticks_with_blocks(group, most)

    def _chunk_repeats(self, batch: Batch) -> int:  # noqa: ARG002
        """How many times in a row the chunks of ``batch`` would be scheduled, each after the KV of the one before."""
        return 1

    def _ticks_with_blocks(self, group: DecodeSet, most: int) -> int:
        """How many of the ``most - 1`` ticks after the next find the blocks that they need."""
        group.clock += 1
        ticks = group.ticks_within(self.pool.free, most - 1)
        group.clock -= 1
        return ticks

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
        group, again = batch.group, len(ends_s) - 1
        for sequence, tokens, _ in batch.chunks:
            sequence.computed += again * tokens
        if group is None:
            return [], [self.pool.used] * again
        _, gaps = group.advance(ends_s[0])
        return gaps, self._run_on(group, ends_s[1:-1])

    def _run_on(self, group: DecodeSet, ends_s: Listing[float]) -> list[int]:
        """Let the decodes of ``group`` get a token at each of ``ends_s`` and go on; return the blocks in use then."""
        used = [self._grown(group)]
        for end_s in ends_s:
            group.tick(end_s)
            used.append(self._grown(group))
        return used

    def _grown(self, group: DecodeSet) -> int:
        """Return the blocks in use once each decode in ``group`` has what its next token needs."""
        if group.crossing():
            self._grow(group)
        return self.pool.used

    def _grow(self, group: DecodeSet) -> None:
        """Take the blocks that the next token of each decode in ``group`` needs: none where all are reserved."""
