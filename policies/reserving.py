"""KV blocks as Orca and FasterTransformer take them: all that a request may need, when it is admitted."""

from __future__ import annotations

from collections.abc import Sequence as Listing

from policies.batch import Batch
from policies.sequence import Sequence
from policies.upfront import UpfrontPolicy


class ReservingPolicy(UpfrontPolicy):
    """Reserves ``max_model_len`` tokens for every resident, and so never preempts (SOSP'23, section 3)."""

    def _most_blocks(self, total: int) -> int:  # noqa: ARG002
        return self.memory.blocks_for(self.memory.max_model_len)

    def _upfront_blocks(self, sequence: Sequence) -> int:  # noqa: ARG002
        return self.memory.blocks_for(self.memory.max_model_len)

    def blocks_ahead(self, batch: Batch, times: int) -> int:  # noqa: ARG002
        """None: they are all reserved."""
        return 0

    def _run_on(self, batch: Batch, ends_s: Listing[float]) -> list[int]:
        times = len(ends_s)
        if batch.group is not None and times:
            batch.group.tick(ends_s[-1], times)
        for sequence, tokens, _ in batch.chunks:
            sequence.computed += (times + 1) * tokens
        return [self.pool.used] * (times + 1)

    def _times_with_blocks(self, batch: Batch, times: int) -> int:  # noqa: ARG002
        return times
