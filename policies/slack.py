"""Slack: as many prompt tokens in each iteration as the nearest token deadline leaves time for."""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import inf

from policies.batch import Batch, Completion
from policies.blocks import KVMemory
from policies.budget import STEP, Budget, cheapest
from policies.costs import Costs
from policies.kv_forecast import KVForecast
from policies.pace import Pace
from policies.paged import PagedPolicy
from policies.prospect import Prospect
from policies.sequence import Sequence, by_rank
from policies.settings import PagedSettings
from policies.spread import Spread

PER_S = 1_000_000
"""Steps of a second in which deadlines are told apart; requests of the same step come first come, first served."""
FULL = 0.9
"""Of the seats: then prompts wait for them."""
LATE_SHARE = 0.25
"""Of the time of the decodes, what prompts get on top of it where decodes alone are late already."""
IDS = 1 << 40
"""More requests than there will be."""


@dataclass(frozen=True, kw_only=True)
class SlackSettings(PagedSettings):
    """Settings of Slack.

    Attributes
    ----------
    tbt_s
        Time between two tokens of a sequence that is not to be exceeded, but for 1 % of them.
    ttft_s
        Time to first token that is wanted of a prompt which does not take long itself.
    patience
        Times its own prefill time that a prompt may wait behind shorter ones that came later.
    max_num_batched_tokens
        Most tokens of a batch, for which memory is kept free, whatever time there is.
    """

    max_num_batched_tokens: int = 8192
    tbt_s: float = 0.1
    ttft_s: float = 2.0
    patience: float = 40.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._at_least("max_num_batched_tokens", 1)
        for name in ("tbt_s", "ttft_s"):
            if not 0 < getattr(self, name) < inf:
                raise ValueError(f"{name} is {getattr(self, name)}; expected a number of seconds > 0")
        if not 0 <= self.patience < inf:
            raise ValueError(f"patience is {self.patience}; expected a number >= 0")

    def most_tokens(self, max_model_len: int) -> int:  # noqa: ARG002
        """Return the tokens of the largest batch; decodes alone may exceed the cap."""
        return max(self.max_num_batched_tokens, self.max_num_seqs)


class Slack(PagedPolicy):
    """Every decode, and beside them prompts as far as the time until the nearest token deadline goes.

    **How much.** A token is due ``tbt_s`` after the one before it. A cost model says how long the batch will take with
    so many prompt tokens, :class:`policies.pace.Pace` by how much it has been too low, and
    :class:`policies.budget.Budget` finds the tokens that fit. With pipeline parallelism a batch goes through all
    stages, each behind the batch before it: on one it may take its share of the time. Where nothing decodes no token
    is due; then a batch takes half of ``ttft_s`` at most, so that whoever comes meanwhile can still be in time. Where
    decodes alone are late the target is out of reach; then prompts run for a quarter of their time beside them. Where
    somebody waits for a seat or for blocks, prompts come as others end, and :class:`policies.spread.Spread` shares them
    out over the batches.

    **Who.** Prompts run in order of the moment until which they can wait: ``ttft_s`` after their arrival, or
    ``patience`` times their own prefill time where that is longer. So short ones pass long ones, but nobody who comes
    after that moment passes any more, and nobody starves: the first in this order is never preempted, gets at least one
    block of tokens an iteration, and has only so many before it.

    **Whether.** A request is admitted once the KV blocks of its prompt are free, and those by which all residents are
    expected to grow together (:class:`policies.kv_forecast.KVForecast`).
    """

    name = "slack"
    needs_costs = True
    settings: SlackSettings

    def __init__(
        self, settings: SlackSettings, memory: KVMemory, *, stages: int = 1, costs: Costs | None = None
    ) -> None:
        assert costs is not None, "slack needs a cost model"
        super().__init__(settings, memory, stages=stages, costs=costs)
        self._costs = costs
        self._pace = Pace(costs)
        self._budget: Budget | None = None
        self._spread = Spread(self._seconds, settings.max_num_batched_tokens)
        self._open = False
        self._refused = 0
        self._forecast = KVForecast(memory)
        self._now_s = 0.0
        self._expected: dict[Batch, tuple[float, float]] = {}

    # --- the order of requests ---

    def _enqueue(self, sequence: Sequence) -> None:
        sequence.rank = self._latest_start(sequence, sequence.left)
        if sequence.left:
            insort(self.waiting, sequence, key=by_rank)
        else:
            super()._enqueue(sequence)

    def _rank_of(self, sequence: Sequence) -> int:
        return self._latest_start(sequence, sequence.target)

    def _latest_start(self, sequence: Sequence, left: int) -> int:
        """Return the moment until which a sequence can wait that has ``left`` prompt tokens to run, as a rank."""
        tokens = -(-max(1, left) // STEP) * STEP
        wait_s = max(self.settings.ttft_s, self.settings.patience * self._prompt_s(tokens))
        return round(PER_S * (sequence.arrival_s + wait_s)) * IDS + sequence.request_id

    def _prompt_s(self, tokens: int) -> float:
        """Return how long a prompt of so many tokens takes if it runs alone and at once."""
        sequence = Sequence(0, arrival_s=0.0, prompt_tokens=tokens, output_tokens=1)
        alone = Prospect(Batch(), iter([sequence]))
        alone.take(tokens)
        return self._seconds(alone)

    def _preempt(self, sequence: Sequence) -> None:
        super()._preempt(sequence)
        self.waiting.remove(sequence)
        insort(self.waiting, sequence, key=by_rank)

    # --- what it learns ---

    def schedule(self, now_s: float) -> Batch | None:
        """Return the next batch, or None where there is nothing to run or no stage is free."""
        self._now_s = now_s
        return super().schedule(now_s)

    def complete(self, batch: Batch, now_s: float, *, stopped: Iterable[Sequence] = ()) -> Completion:
        """Take a batch back whose tokens came out at ``now_s``, and note how long it took."""
        started_s, expected_s = self._expected.pop(batch, (now_s, 0.0))
        if expected_s > 0 and now_s > started_s:
            self._pace.note((now_s - started_s) / expected_s)
        return super().complete(batch, now_s, stopped=stopped)

    def abandon(self, batch: Batch) -> list[Sequence]:
        """Drop the requests of a batch that was scheduled and will never come out, with their KV; return them."""
        self._expected.pop(batch, None)
        return super().abandon(batch)

    def _vacate(self, sequence: Sequence) -> None:
        self._forecast.note(sequence)
        super()._vacate(sequence)

    # --- the batch ---

    def repeats(self, batch: Batch) -> int:
        """As for any policy; once, where seats are free and somebody waits."""
        if self.waiting and self.residents < self.settings.max_num_seqs:
            return 1
        return super().repeats(batch)

    def _fill(self, batch: Batch) -> None:
        self._decode_all(batch)
        if not (self.prefilling or self.waiting) or batch.decodes >= self.settings.max_num_batched_tokens:
            return
        self._open = bool(self.waiting) and self._opens(batch)
        prospect = Prospect(batch, self._lineup(batch))
        if prospect.take(1):
            self._budget = self._budget or self._new_budget()
            most = self._spread.limit(batch, self.residents, self._forecast.mean) if self._crowded(batch) else None
            expected_s = self._budget.spend(prospect, self._time_left_s(batch, prospect), most)
            self._expected[batch] = self._now_s, self.stages * expected_s
            self._run(batch, prospect)

    def _crowded(self, batch: Batch) -> bool:
        """Whether seats or blocks are short, and prompts come only as decodes end."""
        if batch.group is None or not self.waiting or not self._forecast.mean:
            return False
        return not self._open or self.residents >= FULL * self.settings.max_num_seqs

    def _seconds(self, prospect: Prospect) -> float:
        """Return the time on the last stage, which is the longest: it has the head."""
        return self._costs.iteration_time(prospect, self.stages - 1)

    def _time_left_s(self, batch: Batch, prospect: Prospect) -> float:
        """Return how long a batch may be expected to take on one stage."""
        if batch.group is None:
            left_s = self.settings.ttft_s / 2
        else:
            left_s = batch.group.oldest_token_s + self.settings.tbt_s - self._now_s
        allowed_s = left_s / (self.stages * self._pace.factor(prospect, self.stages - 1))
        decodes_s = self._costs.iteration_time(batch, self.stages - 1) if batch.group is not None else 0.0
        return allowed_s if decodes_s <= allowed_s else (1 + LATE_SHARE) * decodes_s

    def _new_budget(self) -> Budget:
        most = cheapest(self._prompt_s, self.settings.max_num_batched_tokens)
        return Budget(self._seconds, most=most, least=self.memory.block_size)

    def _lineup(self, batch: Batch) -> Iterator[Sequence]:
        """Yield those whose prompts may run, in turn; of those who wait as many as find seats and blocks."""
        room, seats = self._room(batch), self._seats
        admitted: list[Sequence] = []
        prefilling, waiting = iter(self.prefilling), iter(self.waiting if seats > 0 else ())
        resident, newcomer = next(prefilling, None), next(waiting, None)
        while room > 0 and (resident is not None or newcomer is not None):
            if newcomer is None or (resident is not None and resident.rank < newcomer.rank):
                assert resident is not None
                yield resident
                resident = next(prefilling, None)
            elif self._admissible(batch, admitted, newcomer) if admitted else self._open:
                admitted.append(newcomer)
                yield newcomer
                newcomer = next(waiting, None) if len(admitted) < seats else None
            else:
                newcomer = None
                continue
            room -= 1

    @property
    def _seats(self) -> int:
        """Sequences that may still become resident."""
        return self.settings.max_num_seqs - self.residents

    def _opens(self, batch: Batch) -> bool:
        """Whether the first who waits may join; one who may not is looked at again once somebody has left."""
        if self.residents and self.residents == self._refused:
            return False
        opens = self._seats > 0 and self._admissible(batch, [], self.waiting[0])
        self._refused = 0 if opens else self.residents
        return opens

    def _admissible(self, batch: Batch, admitted: list[Sequence], newcomer: Sequence) -> bool:
        """Whether the blocks of a prompt are there, beside others that are as good as admitted."""
        blocks = sum(map(self._upfront_blocks, admitted)) + self._upfront_blocks(newcomer)
        free = self.pool.free - blocks - self._spared_blocks
        if free < 0 or not (self.residents or admitted):
            return free >= 0
        return self._forecast.fits(free, self.residents, batch, self.prefilling, [*admitted, newcomer])

    def _run(self, batch: Batch, prospect: Prospect) -> None:
        """Let the chunks of a prospect run."""
        for sequence, tokens, _ in prospect.chunks:
            if sequence.blocks:
                self.prefilling.remove(sequence)
                batch.prefill(sequence, tokens)
            else:
                assert sequence is self.waiting[0]
                self._spread.note(sequence.left)
                self._admit(batch, tokens)
