"""Chunks without hybrid batches: an ablation of Sarathi-Serve."""

from __future__ import annotations

from policies.batch import Batch
from policies.blocks import KVMemory
from policies.costs import Costs
from policies.paged import PagedPolicy
from policies.sarathi_serve import SarathiServeSettings


class ChunkedOnly(PagedPolicy):
    """A turn of prefill chunks, a turn of decodes, and so on (OSDI'24, section 5.4).

    A prefill turn gives its budget to unfinished prompts, and admits new ones only where there are none. A
    turn that finds nothing to do passes to the other kind.
    """

    name = "chunked-only"
    settings: SarathiServeSettings

    def __init__(
        self, settings: SarathiServeSettings, memory: KVMemory, *, stages: int = 1, costs: Costs | None = None
    ) -> None:
        super().__init__(settings, memory, stages=stages, costs=costs)
        self._prefill_turn = True

    def _fill(self, batch: Batch) -> None:
        turns = (self._prefill, self._decode_all)
        for turn in turns if self._prefill_turn else reversed(turns):
            turn(batch)
            if batch.sequences:
                break
        if batch.sequences:
            self._prefill_turn = not batch.chunks

    def repeats(self, batch: Batch) -> int:
        """As for any policy; while requests wait, the next turn may admit them."""
        return 1 if self.waiting else super().repeats(batch)

    def _prefill(self, batch: Batch) -> None:
        budget = self.settings.max_num_batched_tokens
        if self.prefilling:
            self._continue_prefills(batch, budget)
        else:
            self._admit_chunks(batch, budget)
