"""KV blocks as vLLM v0 takes them: the whole prompt at admission, then one at every block border."""

from __future__ import annotations

from policies.blocks import KVMemory
from policies.costs import Costs
from policies.decode_set import DecodeSet
from policies.sequence import Sequence, by_rank
from policies.settings import PagedSettings
from policies.upfront import UpfrontPolicy


class PagedPolicy(UpfrontPolicy):
    """Takes blocks as they are needed, and preempts the latest arrival when there are none left."""

    settings: PagedSettings

    def __init__(
        self, settings: PagedSettings, memory: KVMemory, *, stages: int = 1, costs: Costs | None = None
    ) -> None:
        super().__init__(settings, memory, stages=stages, costs=costs)
        self._spared_blocks = int(settings.watermark * memory.blocks)

    def _admissible_blocks(self) -> int:
        return self.memory.blocks - self._spared_blocks

    def _upfront_blocks(self, sequence: Sequence) -> int:
        return self.memory.blocks_for(sequence.target)

    def _grow(self, group: DecodeSet) -> None:
        crossing = group.crossing()
        if self.pool.allocate_each(crossing):
            return
        for sequence in sorted(crossing, key=by_rank):
            if sequence.group is group:
                self._reserve(sequence, 1, group)
