"""Micro-batches that stay together: requests enter and leave them one by one, as in SARATHI's figure 5."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from policies.batch import Batch, Completion
from policies.blocks import KVMemory
from policies.catalog import PolicyChoice
from policies.costs import Costs
from policies.decode_set import DecodeSet
from policies.ready_decodes import ReadyDecodes
from policies.sarathi import Sarathi, SarathiSettings
from policies.sequence import Sequence


class WaitingMicroBatches(ReadyDecodes):
    """The micro-batches that have come back from the pipeline, each with its decodes, first come first.

    They are never poured together: a batch starts from the one that waits longest, and a request whose prompt has
    ended joins the one that ran the end of its prompt.
    """

    __slots__ = ("_alone",)

    def __init__(self, block_size: int) -> None:
        super().__init__(block_size)
        self._alone = True

    def come_back(self) -> None:
        """Take note that a batch is back; what is added next belongs to it."""
        self._alone = True

    def put_back(self, group: DecodeSet) -> None:
        """Take back the decodes of a batch."""
        self._others.append(group)
        self._alone = False

    def add(self, sequence: Sequence) -> None:
        """Let a sequence join the batch that came back last."""
        if self._alone:
            self.put_back(DecodeSet(self._block_size))
        self._others[-1].add(sequence)

    def take(self, count: int) -> DecodeSet:
        """Return the decodes of the micro-batch that waits longest: there is one, with at most ``count`` of them."""
        self._others = [each for each in self._others if each.size]
        taken = self._others.pop(0)
        assert taken.size <= count, "a micro-batch has outgrown its seats"
        return taken


class FixedSarathi(Sarathi):
    """SARATHI (and, with chunks as long as any prompt, Orca's best case) on micro-batches that stay together."""

    decodes: WaitingMicroBatches

    def __init__(
        self, settings: SarathiSettings, memory: KVMemory, *, stages: int = 1, costs: Costs | None = None
    ) -> None:
        super().__init__(settings, memory, stages=stages, costs=costs)
        self.decodes = WaitingMicroBatches(memory.block_size)

    def complete(self, batch: Batch, now_s: float, *, stopped: Iterable[Sequence] = ()) -> Completion:
        """Take a batch back whose tokens came out at ``now_s``."""
        self.decodes.come_back()
        return super().complete(batch, now_s, stopped=stopped)


@dataclass(frozen=True, kw_only=True)
class FixedChoice(PolicyChoice):
    """SARATHI on micro-batches that stay together; on a single stage there is nothing to keep apart."""

    def build(self, memory: KVMemory, *, stages: int = 1, costs: Costs | None = None) -> Sarathi:
        """Return a fresh policy object."""
        assert isinstance(self.settings, SarathiSettings)
        policy = Sarathi if stages == 1 else FixedSarathi
        return policy(self.settings, memory, stages=stages, costs=costs)
