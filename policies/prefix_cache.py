"""A block pool that finds blocks again by what they hold."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Collection, Iterable, Iterator

from policies.blocks import BlockPool, KVMemory
from policies.cached_prefix import CachedPrefix
from policies.sequence import Sequence

BlockKey = int | bytes | tuple[int, int]


class PrefixCachePool(BlockPool):
    """Blocks shared between sequences whose prompts begin alike, as vLLM v1 shares them.

    A full block keeps its name when nobody holds it any more, until it is the least recently used free one
    and is given away. Blocks without a hash from the workload are named after their own request, so that a
    preempted sequence finds again what has not been given away.
    """

    def __init__(self, memory: KVMemory, *, enabled: bool = True) -> None:
        super().__init__(memory)
        self.enabled = enabled
        self._idle: OrderedDict[int, None] = OrderedDict()
        self._holders: list[int] = []
        self._names: dict[int, BlockKey] = {}
        self._named: dict[BlockKey, int] = {}
        self._awaited = CachedPrefix(None)

    @property
    def free(self) -> int:
        """Blocks nobody holds, those included that could be found again."""
        return self.memory.blocks - len(self._holders) + len(self._idle)

    def hits(self, sequence: Sequence) -> CachedPrefix:
        """Return the cached blocks a waiting sequence's prompt begins with; its last token is always left to run.

        Asked again for the same sequence it costs by the blocks that have come or gone since.
        """
        prefix = self._awaited
        if prefix.sequence is not sequence or prefix.target != sequence.target:
            prefix = self._awaited = CachedPrefix(sequence)
        prefix.cut(self._holders)
        if self.enabled:
            named = self._named
            names = self._keys(sequence, len(prefix), (sequence.target - 1) // self.memory.block_size)
            found = []
            for name in names:
                block = named.get(name)
                if block is None:
                    break
                found.append(block)
            if found:
                prefix.extend(found, self._holders)
        return prefix

    @staticmethod
    def _keys(sequence: Sequence, first: int, last: int) -> Iterator[BlockKey]:
        """Yield the names of blocks [first, last): by their hashes, and where there are none, as the request's own."""
        hashes, own = sequence.block_hashes, sequence.request_id
        hashed = min(last, len(hashes))
        yield from hashes[first:hashed]
        for index in range(max(first, hashed), last):
            yield own, index

    def share(self, sequence: Sequence, hits: CachedPrefix) -> None:
        """Let a sequence hold ``hits``, and count their tokens as computed."""
        self._awaited = CachedPrefix(None)
        holders, idle = self._holders, self._idle
        for block in hits.blocks:
            if not holders[block]:
                del idle[block]
            holders[block] += 1
        sequence.blocks = hits.blocks
        sequence.computed = len(hits) * self.memory.block_size

    def allocate(self, sequence: Sequence, count: int) -> None:
        """Give a sequence the ``count`` free blocks that were not used for longest; they lose their names."""
        assert count <= self.free, "more blocks allocated than are free"
        for _ in range(count):
            sequence.blocks.append(self._oldest())

    def _oldest(self) -> int:
        """Take the free block that was not used for longest: one that never was, while there is such a one."""
        block = len(self._holders)
        if block < self.memory.blocks:
            self._holders.append(1)
            return block
        block, _none = self._idle.popitem(last=False)
        name = self._names.pop(block, None)
        if name is not None:
            del self._named[name]
        self._holders[block] = 1
        if self._awaited.blocks:
            self._awaited.lose(block)
        return block

    @property
    def used(self) -> int:
        """Blocks in use."""
        return len(self._holders) - len(self._idle)

    def allocate_each(self, sequences: Collection[Sequence]) -> bool:
        """Give each of ``sequences`` one free block, in turn; False, and none, where there are not as many."""
        if len(sequences) > self.free:
            return False
        for sequence in sequences:
            self.allocate(sequence, 1)
        return True

    def register(self, sequence: Sequence, start: int, end: int) -> None:
        """Name the full blocks among the tokens [start, end) that have a hash; a name once given stays."""
        size = self.memory.block_size
        self._name(sequence, start // size, min(end // size, len(sequence.block_hashes)))

    def _name(self, sequence: Sequence, first: int, last: int) -> None:
        if not self.enabled:
            return
        names, named, blocks = self._names, self._named, sequence.blocks[first:last]
        if all(map(names.__contains__, blocks)):
            return
        for key, block in zip(self._keys(sequence, first, last), blocks, strict=True):
            if block not in names and key not in named:
                named[key] = block
                names[block] = key

    def free_blocks(self) -> Collection[int]:
        """Return the ids of the free blocks that have been in use before."""
        return self._idle.keys()

    def holders(self, block: int) -> int:
        """How many sequences hold a block that has been in use."""
        return self._holders[block]

    def forget(self, sequence: Sequence) -> None:
        """Forget what the blocks of a sequence hold: it was never computed."""
        for block in sequence.blocks:
            name = self._names.pop(block, None)
            if name is not None:
                del self._named[name]
        self._awaited = CachedPrefix(None)

    def release(self, sequence: Sequence, *, returning: bool = False) -> None:
        """Take all blocks of a sequence back, its last ones to be given away first.

        A sequence that is ``returning`` finds them under its own name, where they have no hash.
        """
        if returning:
            self._name(sequence, 0, sequence.computed // self.memory.block_size)
        else:
            self.register(sequence, 0, sequence.computed)
        holders, idle = self._holders, self._idle
        let_go = self._awaited.let_go if self._awaited.blocks else None
        for block in reversed(sequence.blocks):
            holders[block] -= 1
            if not holders[block]:
                idle[block] = None
                if let_go is not None:
                    let_go(block)
        sequence.blocks = []
        if self.on_release is not None:
            self.on_release()

    def adopt(self, sequences: Iterable[Sequence], old: BlockPool) -> None:
        """Begin with the blocks that ``sequences`` hold, which another pool of the same cache gave them.

        What another prefix cache knows of the others that nobody holds, it knows too.
        """
        held = Counter(block for sequence in sequences for block in sequence.blocks)
        idle: list[int] = []
        if self.enabled and isinstance(old, PrefixCachePool):
            idle, self._names, self._named = list(old._idle), dict(old._names), dict(old._named)
        self._holders = [held[block] for block in range(max([*held, *idle], default=-1) + 1)]
        known = {*held, *idle}
        self._idle = OrderedDict.fromkeys([block for block in range(len(self._holders)) if block not in known] + idle)
