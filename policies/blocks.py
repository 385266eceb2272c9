"""The KV cache as blocks: which are free, which are held."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from policies.sequence import Sequence


@dataclass(frozen=True, kw_only=True)
class KVMemory:
    """The KV cache a policy may fill.

    Attributes
    ----------
    blocks
        Blocks there are, on the rank that has the fewest.
    block_size
        Tokens a block holds.
    max_model_len
        Longest prompt plus output that is served, in tokens.
    """

    blocks: int
    block_size: int = 16
    max_model_len: int = 4096

    def __post_init__(self) -> None:
        for name in ("blocks", "block_size", "max_model_len"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected an integer >= 1")

    def blocks_for(self, tokens: int) -> int:
        """Blocks that hold ``tokens`` tokens."""
        return -(-tokens // self.block_size)


STOCK = 256
"""Ids of blocks that are got ready at a time."""


class BlockPool:
    """Free blocks by id. Blocks in use + free blocks = all blocks, at any time.

    The block that came back last is given away first, one that was never used only when there is no other. So a pool
    takes room only for the blocks that were ever in use, and a thousand replicas cost little.

    Attributes
    ----------
    on_release
        Called whenever a sequence has given its blocks back, the only way in which fewer are in use than before.
    """

    def __init__(self, memory: KVMemory) -> None:
        self.memory = memory
        self.on_release: Callable[[], None] | None = None
        self._free: list[int] = []
        self._touched = 0
        self._shared: Counter[int] = Counter()

    @property
    def free(self) -> int:
        """Blocks nobody holds."""
        return self.memory.blocks - self._touched + len(self._free)

    @property
    def used(self) -> int:
        """Blocks in use."""
        return self._touched - len(self._free)

    def allocate(self, sequence: Sequence, count: int) -> None:
        """Give ``count`` free blocks to a sequence; the caller has looked that there are as many."""
        if len(self._free) < count:
            self._restock(count)
        if count == 1:
            sequence.blocks.append(self._free.pop())
        elif count:
            sequence.blocks += self._free[: -count - 1 : -1]
            del self._free[-count:]

    def _restock(self, count: int) -> None:
        """Put blocks that were never used under those that came back, so that ``count`` are ready."""
        until = min(self._touched + max(count - len(self._free), STOCK), self.memory.blocks)
        self._free[:0] = range(until - 1, self._touched - 1, -1)
        self._touched = until
        assert count <= len(self._free), "more blocks allocated than are free"

    def allocate_each(self, sequences: Collection[Sequence]) -> bool:
        """Give each of ``sequences`` one free block, in turn; False, and none, where there are not as many."""
        free = self._free
        if len(sequences) > len(free):
            if len(sequences) > self.free:
                return False
            self._restock(len(sequences))
        for sequence in sequences:
            sequence.blocks.append(free.pop())
        return True

    def free_blocks(self) -> Collection[int]:
        """Return the ids of the free blocks that have been in use before, or are ready to be."""
        return self._free

    def holders(self, block: int) -> int:
        """How many sequences hold a block that is in use."""
        return 1 + self._shared[block]

    def forget(self, sequence: Sequence) -> None:
        """Forget what the blocks of a sequence hold: it was never computed."""

    def release(self, sequence: Sequence, *, returning: bool = False) -> None:  # noqa: ARG002
        """Take all blocks of a sequence back; ``returning`` if it was preempted and will need them again."""
        self._free += self._unshared(sequence) if self._shared else reversed(sequence.blocks)
        sequence.blocks = []
        if self.on_release is not None:
            self.on_release()

    def _unshared(self, sequence: Sequence) -> list[int]:
        """Return the blocks of a sequence, last first, that nobody else holds; the others are held by one less."""
        own = []
        for block in reversed(sequence.blocks):
            if block not in self._shared:
                own.append(block)
            elif self._shared[block] == 1:
                del self._shared[block]
            else:
                self._shared[block] -= 1
        return own

    def adopt(self, sequences: Iterable[Sequence], old: BlockPool) -> None:  # noqa: ARG002
        """Begin with the blocks that ``sequences`` hold, which another pool of the same cache gave them.

        A prefix cache may have given the same block to several: it is free once all have given it back.
        """
        held = Counter(block for sequence in sequences for block in sequence.blocks)
        self._touched = max(held, default=-1) + 1
        self._free = [block for block in range(self._touched - 1, -1, -1) if block not in held]
        self._shared = Counter({block: holders - 1 for block, holders in held.items() if holders > 1})
