"""What of another policy's residents can stay when a policy takes its place."""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable
from typing import ClassVar

from policies.blocks import BlockPool, KVMemory
from policies.ready_decodes import ReadyDecodes
from policies.sequence import Sequence, by_rank
from policies.settings import Settings


class Successor:
    """A policy that goes on where another leaves off, on the same KV cache.

    Attributes
    ----------
    settings, memory, pool, prefilling, decodes, residents
        As in :class:`policies.policy.Policy`.
    _spared_blocks
        Blocks that must stay free when a request is admitted.
    """

    continues_prompts: ClassVar[bool] = True
    """Whether it runs the rest of a prompt whose beginning has been computed; else it runs prompts whole."""
    settings: Settings
    memory: KVMemory
    pool: BlockPool
    prefilling: list[Sequence]
    decodes: ReadyDecodes
    residents: int
    _preemptions: int
    _spared_blocks: int = 0

    def _staying(self, residents: Iterable[Sequence]) -> dict[Sequence, None]:
        """Return who of the other policy's residents stays one, and take from them the blocks that they need no more.

        What a sequence shares with an older one that stays counts once.
        """
        staying: dict[Sequence, None] = {}
        held: set[int] = set()
        free = self.memory.blocks
        for sequence in residents:
            needed = self._resident_blocks(sequence)
            missing = max(0, needed - len(sequence.blocks))
            own = set(sequence.blocks[:needed]) - held
            left = free - len(own) - missing
            houses = len(staying) < self.settings.max_num_seqs and left >= (self._spared_blocks if missing else 0)
            if houses and (sequence.left <= 0 or self.continues_prompts):
                del sequence.blocks[needed:]
                staying[sequence] = None
                held |= own
                free = left
        return staying

    def _resident_blocks(self, sequence: Sequence) -> int:
        """Blocks that a resident holds between two batches: here, those that its KV fills."""
        return self.memory.blocks_for(sequence.computed)

    def _put_out(self, sequence: Sequence) -> None:
        """Take the KV of a sequence that cannot stay."""
        self.pool.release(sequence, returning=True)
        sequence.restart()
        sequence.preemptions += 1
        self._preemptions += 1

    def _keep(self, sequence: Sequence) -> None:
        """Make a sequence resident that brings its blocks."""
        self.residents += 1
        sequence.rank = self._rank_of(sequence)
        self.pool.allocate(sequence, self._resident_blocks(sequence) - len(sequence.blocks))
        if sequence.left > 0:
            insort(self.prefilling, sequence, key=by_rank)
        else:
            self.decodes.add(sequence)

    def _rank_of(self, sequence: Sequence) -> int:
        """Return the priority of a sequence that becomes resident with its KV."""
        return sequence.request_id
