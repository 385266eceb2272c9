"""One policy in another's place: what is in service stays in service."""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import insort
from collections import deque
from collections.abc import Iterable
from typing import ClassVar

from policies.blocks import BlockPool, KVMemory
from policies.ready_decodes import ReadyDecodes
from policies.sequence import Sequence, by_arrival, by_rank
from policies.settings import Settings
from traces.errors import InputError


class Successor(ABC):
    """A policy that goes on where another leaves off, on the same KV cache.

    Attributes
    ----------
    name, settings, memory, pool, incoming, prefilling, decodes, residents
        As in :class:`policies.policy.Policy`.
    _spared_blocks
        Blocks that must stay free when a request is admitted.
    """

    continues_prompts: ClassVar[bool] = True
    """Whether it runs the rest of a prompt whose beginning has been computed; else it runs prompts whole."""
    name: ClassVar[str]
    settings: Settings
    memory: KVMemory
    pool: BlockPool
    incoming: deque[Sequence]
    prefilling: list[Sequence]
    decodes: ReadyDecodes
    residents: int
    in_flight: int
    _held: dict[Sequence, None]
    _preemptions: int
    _spared_blocks: int = 0

    @property
    @abstractmethod
    def has_work(self) -> bool:
        """Whether any request waits or is resident."""

    @abstractmethod
    def check(self, prompt_tokens: int, output_tokens: int) -> None:
        """Refuse a request that can never be served, by an :class:`~traces.errors.InputError`."""

    @abstractmethod
    def _enqueue(self, sequence: Sequence) -> None:
        """Let a request wait at its place."""

    @abstractmethod
    def _queued(self) -> list[Sequence]:
        """Return the requests that hold no KV."""

    def succeed(self, old: Successor) -> list[Sequence]:
        """Take all requests of another policy over, which is of no use after that; return those that lost their KV.

        A resident keeps its KV blocks, with what they hold, where this policy would have it resident too: it finds a
        seat, the blocks that this policy gives a resident are there, and of its prompt nothing is left, or this policy
        runs prompts in chunks. The oldest are looked at first, as if all younger ones were gone. Whoever cannot stay
        is preempted, and waits in its order of arrival with its output so far as part of what it has to compute again.

        Raises
        ------
        InputError
            If this policy can never serve one of the requests; then nothing has changed.
        ValueError
            If this policy is not a fresh one on the same memory, or the other has a batch in flight, or holds
            sequences whose KV goes elsewhere.
        """
        if self.has_work or self.memory != old.memory:
            raise ValueError("expected a fresh policy on the same memory")
        if old.in_flight or old._held:
            raise ValueError("the other policy has batches in flight or KV on its way; expected neither")
        for sequence in [*old.decodes, *old.prefilling, *old.incoming, *old._queued()]:
            try:
                self.check(sequence.prompt_tokens, sequence.output_tokens)
            except InputError as error:
                raise InputError(str(error), where=f"policy {self.name}, a request in service") from error
        residents, queued = old._resign()
        staying = self._staying(residents)
        self.pool.adopt(residents, old.pool)
        leaving = [sequence for sequence in residents if sequence not in staying]
        for sequence in leaving:
            self._put_out(sequence)
        for sequence in staying:
            self._keep(sequence)
        for sequence in (*leaving, *queued):
            sequence.rank = sequence.request_id
            self._enqueue(sequence)
        self.pool.on_release = old.pool.on_release
        return leaving

    def _resign(self) -> tuple[list[Sequence], list[Sequence]]:
        """Give up all requests between two batches; return the residents, oldest first, and those that hold no KV."""
        residents = sorted([*self.decodes, *self.prefilling], key=by_arrival)
        for sequence in residents:
            if sequence.group is not None:
                sequence.group.remove(sequence)
        return residents, [*self.incoming, *self._queued()]

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
