"""A policy and its oracle behind one face, so that one loop can play on both."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Iterable
from typing import Any

from oracle import ORACLES
from oracle.costs import COSTS
from oracle.job import Request
from oracle.records import Cancelled, Case, Iteration, Outcome, Tokens
from policies import Batch, Policy, Sequence

OUTCOME = [field.name for field in dataclasses.fields(Outcome)]


class System(ABC):
    """What the loop plays on."""

    def __init__(self) -> None:
        self.served: dict[int, Any] = {}

    def outcomes(self) -> list[Outcome]:
        return [Outcome(**{name: self._plain(item, name) for name in OUTCOME}) for item in self.served.values()]

    @staticmethod
    def _plain(item: Any, name: str) -> Any:
        value = getattr(item, name)
        return repr(value) if name.endswith("_s") else value

    @property
    @abstractmethod
    def has_work(self) -> bool: ...

    @property
    @abstractmethod
    def in_flight(self) -> int: ...

    @abstractmethod
    def add(self, request: Request) -> None: ...

    @abstractmethod
    def schedule(self, now_s: float) -> Iteration | None: ...

    @abstractmethod
    def complete(self, now_s: float, stopped: Iterable[int] = ()) -> Tokens: ...

    @abstractmethod
    def cancel(self, request_id: int) -> Cancelled: ...


def grouped(gaps: Iterable[tuple[float, int]]) -> tuple[tuple[float, int], ...]:
    counts: Counter[float] = Counter()
    for gap_s, count in gaps:
        counts[gap_s] += count
    return tuple(sorted(counts.items()))


class PolicySystem(System):
    """The implementation."""

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.policy = policy
        self.flying: deque[Batch] = deque()

    @classmethod
    def of(cls, case: Case) -> PolicySystem:
        return cls(case.choice.build(case.memory, stages=case.stages, costs=COSTS))

    @property
    def has_work(self) -> bool:
        return self.policy.has_work

    @property
    def in_flight(self) -> int:
        return self.policy.in_flight

    @property
    def flights(self) -> list[set[int]]:
        """The requests of each batch in flight."""
        return [
            {chunk.sequence.request_id for chunk in batch.chunks}
            | {sequence.request_id for sequence in batch.decode_sequences()}
            for batch in self.flying
        ]

    def add(self, request: Request) -> None:
        sequence = Sequence(**dataclasses.asdict(request))
        self.served[request.request_id] = sequence
        self.policy.add(sequence)

    def schedule(self, now_s: float) -> Iteration | None:
        batch = self.policy.schedule(now_s)
        if batch is None:
            return None
        self.flying.append(batch)
        decodes = [sequence.request_id for sequence in batch.decode_sequences()]
        ending = [chunk.sequence.request_id for chunk in batch.chunks if chunk.ends_prompt]
        return Iteration(
            start_s=now_s,
            chunks=tuple((chunk.sequence.request_id, chunk.tokens, chunk.past) for chunk in batch.chunks),
            decodes=tuple(decodes),
            sampled=tuple(sorted(decodes + ending)),
            prefill_tokens=batch.prefill_tokens,
            tokens=batch.tokens,
            sequences=batch.sequences,
            outputs=batch.outputs,
            decode_count=batch.decodes,
            context_sum=batch.decode_context_sum,
            context_max=batch.decode_context_max,
            prefill_context_sum=batch.prefill_context_sum,
            preemptions=batch.preemptions,
            waiting=tuple(sequence.request_id for sequence in self.policy.waiting),
            residents=self.policy.residents,
            used_blocks=self.policy.pool.used,
        )

    def complete(self, now_s: float, stopped: Iterable[int] = ()) -> Tokens:
        done = self.policy.complete(self.flying.popleft(), now_s, stopped=[self.served[number] for number in stopped])
        return Tokens(
            end_s=now_s,
            started=frozenset(sequence.request_id for sequence in done.started),
            finished=frozenset(sequence.request_id for sequence in done.finished),
            gaps=grouped(done.gaps),
            residents=self.policy.residents,
            used_blocks=self.policy.pool.used,
        )

    def cancel(self, request_id: int) -> Cancelled:
        self.policy.cancel(self.served[request_id])
        return Cancelled(request_id=request_id, residents=self.policy.residents, used_blocks=self.policy.pool.used)


class OracleSystem(System):
    """The plain rules."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.oracle = ORACLES[case.policy](
            blocks=case.blocks,
            block_size=case.block_size,
            max_model_len=case.max_model_len,
            stages=case.stages,
            **dataclasses.asdict(case.choice.settings),
        )

    @property
    def has_work(self) -> bool:
        return bool(self.oracle.waiting or self.oracle.residents)

    @property
    def in_flight(self) -> int:
        return len(self.oracle.flying)

    def add(self, request: Request) -> None:
        self.served[request.request_id] = self.oracle.add(request)

    def schedule(self, now_s: float) -> Iteration | None:
        batch = self.oracle.schedule(now_s)
        if batch is None:
            return None
        chunks = [piece for piece in batch if not piece.decode]
        contexts = [piece.past + 1 for piece in batch if piece.decode]
        preemptions, self.oracle.preempted_since_last_batch = self.oracle.preempted_since_last_batch, 0
        return Iteration(
            start_s=now_s,
            chunks=tuple((piece.job.request_id, piece.tokens, piece.past) for piece in chunks),
            decodes=tuple(piece.job.request_id for piece in batch if piece.decode),
            sampled=tuple(sorted(piece.job.request_id for piece in batch if piece.samples)),
            prefill_tokens=sum(piece.tokens for piece in chunks),
            tokens=sum(piece.tokens for piece in batch),
            sequences=len(batch),
            outputs=sum(piece.samples for piece in batch),
            decode_count=len(contexts),
            context_sum=sum(contexts),
            context_max=max(contexts, default=0),
            prefill_context_sum=sum(piece.past for piece in chunks),
            preemptions=preemptions,
            waiting=tuple(job.request_id for job in self.oracle.waiting),
            residents=len(self.oracle.residents),
            used_blocks=self.oracle.used(),
        )

    def complete(self, now_s: float, stopped: Iterable[int] = ()) -> Tokens:
        started, finished, gaps = self.oracle.complete(now_s, [self.served[number] for number in stopped])
        return Tokens(
            end_s=now_s,
            started=frozenset(job.request_id for job in started),
            finished=frozenset(job.request_id for job in finished),
            gaps=grouped((gap_s, 1) for gap_s in gaps),
            residents=len(self.oracle.residents),
            used_blocks=self.oracle.used(),
        )

    def cancel(self, request_id: int) -> Cancelled:
        self.oracle.cancel(self.served[request_id])
        return Cancelled(request_id=request_id, residents=len(self.oracle.residents), used_blocks=self.oracle.used())
