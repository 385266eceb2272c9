"""What the prefix cache holds for the request at the head of the queue."""

from __future__ import annotations

from policies.sequence import Sequence


class CachedPrefix:
    """The cached blocks that the prompt of a waiting sequence begins with, kept up to date while it waits.

    Attributes
    ----------
    sequence, target
        Whose blocks, and how many prompt tokens it had to run when they were looked up.
    blocks
        Their ids, in order.
    idle
        How many of them nobody holds.
    """

    __slots__ = ("_lost", "_where", "blocks", "idle", "sequence", "target")

    def __init__(self, sequence: Sequence | None) -> None:
        self.sequence = sequence
        self.target = 0 if sequence is None else sequence.target
        self.blocks: list[int] = []
        self.idle = 0
        self._where: dict[int, list[int]] | None = None
        self._lost: set[int] = set()

    def __len__(self) -> int:
        return len(self.blocks)

    def extend(self, blocks: list[int], holders: list[int]) -> None:
        """Add the blocks found for the next places; ``holders`` says how many hold each."""
        self.blocks += blocks
        self.idle += sum([not holders[block] for block in blocks])
        self._where = None

    @property
    def _places(self) -> dict[int, list[int]]:
        """Block -> its places among the blocks, looked up only where one comes or goes while the sequence waits."""
        if self._where is None:
            self._where = {}
            for place, block in enumerate(self.blocks):
                self._where.setdefault(block, []).append(place)
        return self._where

    def lose(self, block: int) -> None:
        """Take note that an idle block has been given away."""
        if block in self._places:
            self.idle -= len(self._places[block])
            self._lost.add(block)

    def let_go(self, block: int) -> None:
        """Take note that nobody holds a block any more."""
        if block in self._places:
            self.idle += len(self._places[block])

    def cut(self, holders: list[int]) -> None:
        """Leave out what is no prefix any more: the first block that is lost, and all after it."""
        if not self._lost:
            return
        first = min((self._places[block][0] for block in self._lost), default=len(self.blocks))
        self._lost.clear()
        while len(self.blocks) > first:
            block = self.blocks.pop()
            self.idle -= not holders[block]
            places = self._places[block]
            places.pop()
            if not places:
                del self._places[block]
