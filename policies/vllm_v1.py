"""vLLM v1: one token budget for all, running requests first."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

from policies.batch import Batch
from policies.blocks import KVMemory
from policies.cached_prefix import CachedPrefix
from policies.costs import Costs
from policies.decode_set import DecodeSet
from policies.policy import Policy
from policies.prefix_cache import PrefixCachePool
from policies.sequence import Sequence, by_rank
from policies.settings import Settings


@dataclass(frozen=True, kw_only=True)
class VLLMV1Settings(Settings):
    """Settings of vLLM v1.

    Attributes
    ----------
    max_num_batched_tokens
        The token budget of an iteration, at least ``max_num_seqs``.
    long_prefill_token_threshold
        Longest chunk, in tokens; None for no limit but the budget.
    enable_prefix_caching
        Whether blocks with the same content are shared.
    scheduler_reserve_full_isl
        Whether a request is admitted only when blocks for its whole prompt are free (vLLM 0.19), though they
        are taken chunk by chunk.
    async_scheduling
        Whether each batch is chosen while the one before it runs (vLLM 0.19's default): what arrives or
        finishes then counts for the batch after. With pipeline parallelism it makes no difference, since as
        many batches are in flight as there are stages in either case.
    """

    max_num_batched_tokens: int = 2048
    long_prefill_token_threshold: int | None = None
    enable_prefix_caching: bool = True
    scheduler_reserve_full_isl: bool = True
    async_scheduling: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._at_least("long_prefill_token_threshold", 1)
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise ValueError(
                f"max_num_batched_tokens is {self.max_num_batched_tokens}; expected at least max_num_seqs "
                f"{self.max_num_seqs}"
            )

    def most_tokens(self, max_model_len: int) -> int:  # noqa: ARG002
        """Return the tokens of the largest batch."""
        return self.max_num_batched_tokens


class VLLMV1(Policy):
    """Running requests first, decodes and chunks alike, then waiting ones, while the budget lasts.

    Source: vllm-project/vllm, the scheduler of the v1 core. The rank of a sequence is its place in the order
    of admission.

    With asynchronous scheduling the real engine chooses a batch when the one before it starts. It knows by
    then which tokens that one computes, and by their number which outputs end with it, but neither what
    arrives meanwhile, nor may it take the seats and blocks of what ends. The same batches come out if it is
    chosen when the one before it ends, from what was known at its start: so ``schedule`` here is asked as ever,
    and looks away from arrivals and free seats that are younger.
    """

    name = "vllm-v1"
    settings: VLLMV1Settings
    pool: PrefixCachePool

    def __init__(
        self, settings: VLLMV1Settings, memory: KVMemory, *, stages: int = 1, costs: Costs | None = None
    ) -> None:
        super().__init__(settings, memory, stages=stages, costs=costs)
        self._admissions = 0
        self._ahead = settings.async_scheduling and stages == 1
        self._idle = True
        self._news = False
        self._unseen: list[Sequence] = []
        self._leaving: list[Sequence] = []

    def _new_pool(self) -> PrefixCachePool:
        return PrefixCachePool(self.memory, enabled=self.settings.enable_prefix_caching)

    @property
    def has_work(self) -> bool:
        """Whether any request waits or is resident."""
        return bool(self.waiting or self.incoming or self._unseen or self.residents > len(self._leaving))

    def _enqueue(self, sequence: Sequence) -> None:
        """Queue a request; one that arrives while a batch runs is first seen after the next."""
        if self._ahead and not self._idle:
            self._unseen.append(sequence)
        else:
            super()._enqueue(sequence)

    def cancel(self, sequence: Sequence) -> None:
        """Drop a request: now, or when the batch that it is in comes back."""
        if sequence in self._unseen:
            self._unseen.remove(sequence)
        else:
            super().cancel(sequence)

    @property
    def holders(self) -> list[Sequence]:
        """The sequences that hold KV, while no batch is in flight."""
        return [*super().holders, *self._leaving]

    def _queued(self) -> list[Sequence]:
        return [*super()._queued(), *self._unseen]

    def schedule(self, now_s: float) -> Batch | None:
        """Return the next batch, or None where there is nothing to run or no stage is free."""
        if not self._ahead or self.in_flight:
            return super().schedule(now_s)
        batch = super().schedule(now_s)
        self._news = self._catch_up()
        if self._news and batch is None:
            batch = super().schedule(now_s)
        self._idle = batch is None
        return batch

    def repeats(self, batch: Batch) -> int:
        """As for any policy; once, where something new was seen only after the batch was chosen, or where the first in
        the queue may get in because hits of its prompt, which nobody held, are given away."""
        if self._news or (self.waiting and not self._needs_whole(self.waiting[0])):
            return 1
        return super().repeats(batch)

    def _catch_up(self) -> bool:
        """See what came and what went while the last batch ran; False where nothing did."""
        news = bool(self._unseen or self._leaving)
        for sequence in self._unseen:
            super()._enqueue(sequence)
        self._unseen.clear()
        for sequence in self._leaving:
            super()._vacate(sequence)
        self._leaving.clear()
        return news

    def _vacate(self, sequence: Sequence) -> None:
        if self._ahead:
            self._leaving.append(sequence)
        else:
            super()._vacate(sequence)

    def _candidates(self, group: DecodeSet) -> list[Sequence | None]:
        return [*super()._candidates(group), max(self._leaving, key=by_rank, default=None)]

    def _preempt(self, sequence: Sequence) -> None:
        if sequence in self._leaving:
            self._leaving.remove(sequence)
            super()._vacate(sequence)
            self._preemptions += 1
        else:
            super()._preempt(sequence)

    def _take_back(self, sequence: Sequence) -> None:
        if self._ahead and sequence.computed > sequence.target:
            sequence.computed -= 1  # the batch that computed its last token was still running
        super()._take_back(sequence)

    def _fill(self, batch: Batch) -> None:
        preemptions = self._preemptions
        self._run_residents(batch)
        if self._preemptions == preemptions:
            self._admit_waiting(batch)

    def _run_residents(self, batch: Batch) -> None:
        decodes, chunks = self._slices()
        group = self.decodes.take(decodes)
        for sequence in sorted([*group.crossing(), *chunks], key=by_rank):
            if sequence.group is group:
                self._reserve(sequence, 1, group)
            elif sequence in self.prefilling:
                tokens = chunks[sequence]
                if self._reserve(sequence, self._missing(sequence, tokens), group):
                    self.prefilling.remove(sequence)
                    self._run(batch, sequence, tokens)
        batch.decode(group)
        if not group.size:
            self.decodes.put_back(group)

    def _chunk_repeats(self, batch: Batch) -> int:
        """How often a chunk runs before the last of its prompt.

        Once, where whoever waits looks for blocks each time: the chunk may have filled one that the other begins with.
        """
        looks = self.waiting and batch.tokens < self.settings.max_num_batched_tokens
        if len(batch.chunks) > 1 or looks:
            return 1
        sequence, tokens, past = batch.chunks[0]
        return (sequence.target - past - 1) // tokens

    def _times_with_blocks(self, batch: Batch, times: int) -> int:
        free = self.pool.free - self._chunk_blocks(batch, times)
        if free < 0:
            return 0
        return times if batch.group is None else batch.group.ticks_within(free, times)

    def _chunk_blocks(self, batch: Batch, times: int) -> int:
        """How many blocks the chunks of ``batch``, just scheduled, take when it runs ``times`` more times."""
        return sum(self._missing(sequence, (times + 1) * tokens) for sequence, tokens, _ in batch.chunks)

    def blocks_ahead(self, batch: Batch, times: int) -> int:
        """How many KV blocks ``batch``, just scheduled, takes when it is scheduled ``times`` more times."""
        return super().blocks_ahead(batch, times) + self._chunk_blocks(batch, times)

    def _grown(self, batch: Batch) -> int:
        if not batch.chunks:
            return super()._grown(batch)
        ((sequence, tokens, _),) = batch.chunks
        crossing = () if batch.group is None else batch.group.crossing()
        for each in sorted([*crossing, sequence], key=by_rank):
            self.pool.allocate(each, self._missing(sequence, tokens) if each is sequence else 1)
        self.pool.register(sequence, sequence.computed, sequence.computed + tokens)
        return self.pool.used

    def _grow(self, group: DecodeSet) -> None:
        crossing = sorted(group.crossing(), key=by_rank)
        if self.pool.allocate_each(crossing):
            return
        for sequence in crossing:
            if sequence.group is group:
                self._reserve(sequence, 1, group)

    def _slices(self) -> tuple[int, dict[Sequence, int]]:
        """Share the budget out in order of admission: how many decodes run, and the tokens of each chunk."""
        budget, seats, decodes = self.settings.max_num_batched_tokens, self.batch_limit, 0
        chunks: dict[Sequence, int] = {}
        ranks: list[int] | None = None
        for sequence in self.prefilling:
            before = len(self.decodes)
            if before and self.decodes.latest.rank > sequence.rank:  # type: ignore[union-attr]
                ranks = ranks or [decode.rank for decode in self.decodes.by_rank()]
                before = bisect_left(ranks, sequence.rank)
            joining = min(before - decodes, budget, seats)
            decodes, budget, seats = decodes + joining, budget - joining, seats - joining
            tokens = min(self._chunk(sequence.left), budget)
            if decodes < before or tokens < 1 or seats < 1:
                return decodes, chunks
            chunks[sequence] = tokens
            budget, seats = budget - tokens, seats - 1
        return decodes + min(len(self.decodes) - decodes, budget, seats), chunks

    def _chunk(self, left: int) -> int:
        return min(left, self.settings.long_prefill_token_threshold or left)

    def _missing(self, sequence: Sequence, tokens: int) -> int:
        return self.memory.blocks_for(sequence.computed + tokens) - len(sequence.blocks)

    def _run(self, batch: Batch, sequence: Sequence, tokens: int) -> None:
        batch.prefill(sequence, tokens)
        self.pool.register(sequence, sequence.computed, sequence.computed + tokens)

    def _admit_waiting(self, batch: Batch) -> None:
        budget = self.settings.max_num_batched_tokens
        while (
            self.waiting
            and batch.tokens < budget
            and self.residents < self.settings.max_num_seqs
            and self._room(batch) > 0
        ):
            sequence = self.waiting[0]
            hits = self.pool.hits(sequence)
            cached = len(hits) * self.memory.block_size
            tokens = min(self._chunk(sequence.target - cached), budget - batch.tokens)
            span = sequence.target if self._needs_whole(sequence) else cached + tokens
            if self.memory.blocks_for(span) - len(hits) > self.pool.free - hits.idle:
                return
            self.waiting.popleft()
            self._seat(sequence, hits)
            self.pool.allocate(sequence, self._missing(sequence, tokens))
            self._run(batch, sequence, tokens)

    def _house(self, sequence: Sequence) -> bool:
        hits, computed, cached = self.pool.hits(sequence), sequence.computed, sequence.cached_tokens
        missing = self.memory.blocks_for(computed) - len(hits)
        if missing > self.pool.free - hits.idle:
            return False
        self._seat(sequence, hits)
        self.pool.allocate(sequence, missing)
        sequence.computed, sequence.cached_tokens = computed, cached
        self.pool.register(sequence, 0, computed)
        return True

    def _resign(self) -> tuple[list[Sequence], list[Sequence]]:
        self._catch_up()
        return super()._resign()

    def _keep(self, sequence: Sequence) -> None:
        super()._keep(sequence)
        self.pool.register(sequence, 0, sequence.computed)

    def _rank_of(self, sequence: Sequence) -> int:  # noqa: ARG002
        self._admissions += 1
        return self._admissions

    def _needs_whole(self, sequence: Sequence) -> bool:
        """With batches in flight, two preempted requests could else take each other's blocks for ever."""
        return self.settings.scheduler_reserve_full_isl or (self.stages > 1 and sequence.preemptions > 0)

    def _seat(self, sequence: Sequence, hits: CachedPrefix) -> None:
        self.residents += 1
        self._admissions += 1
        sequence.rank = self._admissions
        self.pool.share(sequence, hits)
        if not sequence.preemptions:
            sequence.cached_tokens = sequence.computed
