"""What all policies share: the queues, the KV blocks, and the life of a sequence."""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import insort
from collections import deque
from collections.abc import Iterable
from typing import ClassVar

from policies.batch import Batch, Completion
from policies.blocks import BlockPool, KVMemory
from policies.costs import Costs
from policies.decode_set import DecodeSet
from policies.ready_decodes import ReadyDecodes
from policies.sequence import Sequence, by_arrival, by_rank
from policies.settings import Settings
from policies.steady import Steady
from policies.succession import Successor
from traces.errors import InputError


class Policy(Steady, Successor, ABC):
    """Decides what the next batch holds.

    The loop is the same in the simulator and in the engine: ``batch = policy.schedule(now)``; execute it;
    ``policy.complete(batch, now)``. A policy knows no clock but the times it is given, so that equal
    completion times give equal batches. With pipeline parallelism up to ``stages`` batches are in flight; a
    batch then holds what is ready when the first stage becomes free, and a sequence is in at most one batch
    in flight.

    Attributes
    ----------
    waiting
        Requests that hold no KV, first come first; a preempted one goes back to the front.
    incoming
        Sequences whose KV was computed elsewhere and that wait here for a seat, first come first.
    decodes, prefilling
        Residents that are ready (in no batch in flight): those that decode, and those whose prompt is not
        done, in order of priority.
    residents
        Sequences that hold KV, also those in flight.
    costs
        How long batches take, for a policy that asks.
    """

    name: ClassVar[str]
    needs_costs: ClassVar[bool] = False
    """Whether it asks a cost model, which has to be handed in then."""
    settings: Settings

    def __init__(self, settings: Settings, memory: KVMemory, *, stages: int = 1, costs: Costs | None = None) -> None:
        if stages < 1:
            raise ValueError(f"stages is {stages}; expected an integer >= 1")
        self.settings = settings
        self.memory = memory
        self.stages = stages
        self.costs = costs
        self.batch_limit = max(1, settings.max_num_seqs // stages)
        self.pool = self._new_pool()
        self.waiting: deque[Sequence] = deque()
        self.incoming: deque[Sequence] = deque()
        self.prefilling: list[Sequence] = []
        self.decodes = ReadyDecodes(memory.block_size)
        self.residents = 0
        self.in_flight = 0
        self._fits = 0
        self._preemptions = 0
        self._cancelled: dict[Sequence, None] = {}
        self._held: dict[Sequence, None] = {}

    def _new_pool(self) -> BlockPool:
        return BlockPool(self.memory)

    @property
    def has_work(self) -> bool:
        """Whether any request waits or is resident."""
        return bool(self.waiting or self.incoming or self.residents)

    # --- what the loop calls ---

    def check(self, prompt_tokens: int, output_tokens: int) -> None:
        """Refuse a request that can never be served.

        Raises
        ------
        InputError
            If prompt plus output exceed ``max_model_len``, or need more KV blocks than there are.
        """
        if prompt_tokens < 1 or output_tokens < 1:
            raise InputError(f"{prompt_tokens} prompt and {output_tokens} output tokens", expected="at least 1 of each")
        total = prompt_tokens + output_tokens
        if total <= self._fits:
            return
        if total > self.memory.max_model_len:
            raise InputError(
                f"{prompt_tokens} prompt + {output_tokens} output = {total} tokens",
                expected=f"at most --max-model-len {self.memory.max_model_len}",
            )
        needed, most = self._most_blocks(total), self._admissible_blocks()
        if needed > most:
            raise InputError(f"{total} tokens need {needed} KV blocks", expected=f"at most the {most} that can be had")
        self._fits = total

    def _most_blocks(self, total: int) -> int:
        """Blocks a request holds at its end; the last output token is never written to the cache."""
        return self.memory.blocks_for(total - 1)

    def _admissible_blocks(self) -> int:
        return self.memory.blocks

    def add(self, sequence: Sequence) -> None:
        """Take a request that has just arrived; the caller adds them in order of arrival, ties by id.

        One that comes late, from a replica that failed, takes its place among the others. One whose KV has come with
        it (nothing is ``left`` of its prompt) is decoded as soon as it has a seat and blocks, before younger prompts.
        """
        self.check(sequence.prompt_tokens, sequence.output_tokens)
        self._enqueue(sequence)

    def _enqueue(self, sequence: Sequence) -> None:
        queue = self.waiting if sequence.left else self.incoming
        if queue and queue[-1].request_id > sequence.request_id:
            insort(queue, sequence, key=by_arrival)
        else:
            queue.append(sequence)

    def schedule(self, now_s: float) -> Batch | None:
        """Return the next batch, or None where there is nothing to run or no stage is free."""
        if self.in_flight == self.stages:
            return None
        batch = Batch()
        if self.incoming:
            self._seat_incoming()
        self._fill(batch)
        if batch.group is None and not batch.chunks:
            return None
        for sequence, _, _ in batch.chunks:
            if sequence.scheduled_s != sequence.scheduled_s:
                sequence.scheduled_s = now_s
        self.in_flight += 1
        if self._preemptions:
            batch.preemptions, self._preemptions = self._preemptions, 0
        return batch

    @abstractmethod
    def _fill(self, batch: Batch) -> None:
        """Put into ``batch`` what the policy's rule says."""

    def complete(self, batch: Batch, now_s: float, *, stopped: Iterable[Sequence] = ()) -> Completion:
        """Take a batch back whose tokens came out at ``now_s``.

        ``stopped`` are sequences of the batch whose output ended before its budget (the engine saw a stop
        token): they finish now.
        """
        self.in_flight -= 1
        done, group = Completion(), batch.group
        if group is not None:
            done.finished, done.gaps = group.advance(now_s)
            self.decodes.put_back(group)
        for sequence, tokens, _ in batch.chunks:
            sequence.computed += tokens
            if sequence.computed == sequence.target:
                self._end_prompt(sequence, now_s, done)
            elif self.prefilling:
                insort(self.prefilling, sequence, key=by_rank)
            else:
                self.prefilling.append(sequence)
        if stopped:
            done.finished += [sequence for sequence in stopped if self._forget(sequence)]
        if done.finished:
            if len(done.finished) > 1:
                done.finished.sort(key=by_rank)
            for sequence in done.finished:
                sequence.finished_s = sequence.last_token_s = now_s
                self._vacate(sequence)
        if self._cancelled:
            self._drop_cancelled()
        return done

    def _vacate(self, sequence: Sequence) -> None:
        """Take the seat and the blocks of a sequence that has finished."""
        self.pool.release(sequence)
        self.residents -= 1

    def hold(self, sequence: Sequence) -> None:
        """Run a resident no further, whose KV goes elsewhere; it keeps its seat and blocks until :meth:`let_go`."""
        taken = self._forget(sequence)
        assert taken, "only a resident that is in no batch in flight can be held"
        self._held[sequence] = None

    def let_go(self, sequence: Sequence) -> None:
        """Take the seat and the blocks of a sequence that was held; what it has computed stays computed."""
        del self._held[sequence]
        self.pool.release(sequence)
        self.residents -= 1

    def cancel(self, sequence: Sequence) -> None:
        """Drop a request: now, or when the batch that it is in comes back."""
        if sequence in self.incoming:
            self.incoming.remove(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)
        elif sequence.blocks:
            self._cancelled[sequence] = None
            self._drop_cancelled()

    def abandon(self, batch: Batch) -> list[Sequence]:
        """Drop the requests of a batch that was scheduled and will never come out, with their KV; return them."""
        self.in_flight -= 1
        lost = [*batch.decode_sequences(), *(chunk.sequence for chunk in batch.chunks)]
        for sequence in lost:
            if sequence.group is not None:
                sequence.group.remove(sequence)
            self.pool.forget(sequence)
            sequence.computed = 0
        for sequence in lost:
            self._cancelled.pop(sequence, None)
            self.pool.release(sequence)
            self.residents -= 1
        if batch.group is not None:
            self.decodes.put_back(batch.group)
        return lost

    @property
    def holders(self) -> list[Sequence]:
        """The sequences that hold KV, while no batch is in flight."""
        return [*self.decodes, *self.prefilling, *self._held]

    def _drop_cancelled(self) -> None:
        for sequence in list(self._cancelled):
            if sequence.finished_s == sequence.finished_s:
                del self._cancelled[sequence]
            elif self._forget(sequence):
                del self._cancelled[sequence]
                self.pool.release(sequence)
                self.residents -= 1

    def evacuate(self, in_flight: Iterable[Batch]) -> tuple[list[Sequence], int]:
        """Give up all requests, as when the replica fails; the policy is of no use after that.

        Parameters
        ----------
        in_flight
            The batches that were scheduled and never came back.

        Returns
        -------
        tuple
            The requests that have not ended, in order of arrival, each without KV and with its output so far as part of
            what it has to compute again; and how many tokens of KV that is.
        """
        residents = [*self.decodes, *self.prefilling, *self._held, *self.incoming]
        for batch in in_flight:
            residents += [*(batch.group or ()), *(chunk.sequence for chunk in batch.chunks)]
        lost = 0
        for sequence in residents:
            if sequence.group is not None:
                sequence.group.remove(sequence)
            lost += sequence.computed
            sequence.restart()
        everyone = [*residents, *self._queued()]
        for sequence in everyone:
            sequence.rank = sequence.request_id
        return sorted(everyone, key=by_rank), lost

    def _queued(self) -> list[Sequence]:
        """Return the requests that hold no KV."""
        return list(self.waiting)

    def fresh(self) -> Policy:
        """Return the same policy without any request."""
        return type(self)(self.settings, self.memory, stages=self.stages, costs=self.costs)

    # --- what a rule is written with ---

    def _room(self, batch: Batch) -> int:
        """Sequences that may still join the batch."""
        return self.batch_limit - batch.sequences

    # --- the life of a sequence ---

    def _seat_incoming(self) -> None:
        """Let sequences decode whose KV has come, unless an older request waits for a seat."""
        incoming, waiting = self.incoming, self.waiting
        while (
            incoming
            and self.residents < self.settings.max_num_seqs
            and not (waiting and waiting[0].request_id < incoming[0].request_id)
            and self._house(incoming[0])
        ):
            self.decodes.add(incoming.popleft())

    def _house(self, sequence: Sequence) -> bool:
        """Make a sequence resident that brings its KV, if the blocks for that are free."""
        blocks = self.memory.blocks_for(sequence.computed)
        if self.pool.free < blocks:
            return False
        self.residents += 1
        self.pool.allocate(sequence, blocks)
        return True

    def _end_prompt(self, sequence: Sequence, now_s: float, done: Completion) -> None:
        """Take note of the output token that the last chunk of a prompt yields."""
        sequence.generated += 1
        if sequence.generated == 1:
            sequence.first_token_s = now_s
            done.started.append(sequence)
        else:
            done.gaps.append((now_s - sequence.last_token_s, 1))
        sequence.last_token_s = now_s
        if sequence.generated == sequence.output_tokens:
            done.finished.append(sequence)
        else:
            self.decodes.add(sequence)

    def _reserve(self, sequence: Sequence, count: int, group: DecodeSet) -> bool:
        """Give a sequence ``count`` blocks; where they are not free, preempt until they are.

        The victim is always the one of the highest rank that is ready and not yet in the batch. ``group`` are
        the decodes of the batch; they get their blocks in order of rank, so none that has its block already
        is ever the victim. It may be ``sequence`` itself: then the answer is False.
        """
        while self.pool.free < count:
            victim = max((each for each in self._candidates(group) if each is not None), key=by_rank)
            self._preempt(victim)
            if victim is sequence:
                return False
        self.pool.allocate(sequence, count)
        return True

    def _candidates(self, group: DecodeSet) -> list[Sequence | None]:
        """Return the last of each kind of resident that may be preempted."""
        return [group.latest, self.decodes.latest, *self.prefilling[-1:]]

    def _preempt(self, sequence: Sequence) -> None:
        """Take a ready resident's KV away; what it has produced so far it will recompute."""
        if sequence.group is not None:
            sequence.group.remove(sequence)
        else:
            self.prefilling.remove(sequence)
        self._take_back(sequence)
        sequence.restart()
        sequence.preemptions += 1
        self.waiting.appendleft(sequence)
        self.residents -= 1
        self._preemptions += 1

    def _take_back(self, sequence: Sequence) -> None:
        """Take the blocks of a preempted sequence, which will find those again that nobody else got."""
        self.pool.release(sequence, returning=True)

    def _forget(self, sequence: Sequence) -> bool:
        """Take a sequence from among the residents that are ready; False where it is not one of them."""
        if sequence.group is not None and sequence in self.decodes:
            sequence.group.remove(sequence)
        elif sequence in self.prefilling:
            self.prefilling.remove(sequence)
        else:
            return False
        return True
