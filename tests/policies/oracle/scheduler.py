"""The part of the rules that all policies have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from math import isnan
from typing import Any

from oracle.job import Job, Request, Slice


class Oracle(ABC):
    """Queues as plain lists, free blocks counted anew whenever somebody asks."""

    def __init__(self, *, blocks: int, block_size: int, max_model_len: int, stages: int, **settings: Any) -> None:
        self.total_blocks = blocks
        self.block_size = block_size
        self.max_model_len = max_model_len
        self.stages = stages
        self.settings = settings
        self.waiting: list[Job] = []
        self.residents: list[Job] = []
        self.flying: list[list[Slice]] = []
        self.batch: list[Slice] = []
        self.cancelled: list[Job] = []
        self.preempted_since_last_batch = 0

    # --- the loop ---

    def add(self, request: Request) -> Job:
        job = Job(request, place=request.request_id, target=request.prompt_tokens)
        self.waiting.append(job)
        return job

    def schedule(self, now_s: float) -> list[Slice] | None:
        """At most ``stages`` batches are in flight."""
        if len(self.flying) >= self.stages:
            return None
        self.batch = []
        self.fill()
        batch, self.batch = self.batch, []
        if not batch:
            return None
        for piece in batch:
            if isnan(piece.job.scheduled_s):
                piece.job.scheduled_s = now_s
        self.flying.append(batch)
        return batch

    @abstractmethod
    def fill(self) -> None:
        """Put slices into ``self.batch`` as the rule says."""

    def complete(self, now_s: float, stopped: Iterable[Job] = ()) -> tuple[list[Job], list[Job], list[float]]:
        """The oldest batch in flight comes back: who started, who finished, and the gaps between tokens."""
        started, finished, gaps = [], [], []
        for piece in self.flying.pop(0):
            job = piece.job
            job.computed += piece.tokens
            if not job.decoding:
                continue
            job.generated += 1
            if job.generated == 1:
                job.first_token_s = now_s
                started.append(job)
            else:
                gaps.append(now_s - job.last_token_s)
            job.last_token_s = now_s
            if job.generated == job.request.output_tokens or job in stopped:
                job.finished_s = now_s
                finished.append(job)
        for job in sorted(finished, key=lambda job: job.place):
            self.residents.remove(job)
            self.release(job)
        self.drop_cancelled()
        return started, finished, gaps

    def cancel(self, job: Job) -> None:
        self.cancelled.append(job)
        self.drop_cancelled()

    def drop_cancelled(self) -> None:
        """At once, but for those in flight: they go when their batch comes back."""
        self.waiting = [job for job in self.waiting if job not in self.cancelled]
        for job in self.cancelled:
            if job in self.ready():
                self.residents.remove(job)
                self.release(job)

    # --- who is where ---

    def ready(self, wanted: Callable[[Job], bool] = lambda job: True) -> list[Job]:
        """Residents in no batch, neither in flight nor the one being filled; oldest first."""
        busy = [piece.job for batch in [*self.flying, self.batch] for piece in batch]
        found = [job for job in self.residents if job not in busy and wanted(job)]
        return sorted(found, key=lambda job: job.place)

    def ready_decodes(self) -> list[Job]:
        return self.ready(lambda job: job.decoding)

    def ready_prefills(self) -> list[Job]:
        return self.ready(lambda job: not job.decoding)

    def seats(self) -> int:
        """Sequences that may still join this batch: its share of max_num_seqs less those in it."""
        share: int = self.settings["max_num_seqs"] // self.stages
        return max(1, share) - len(self.batch)

    def tokens(self) -> int:
        """Tokens in the batch so far."""
        return sum(piece.tokens for piece in self.batch)

    # --- blocks ---

    def blocks_for(self, tokens: int) -> int:
        blocks = 0
        while blocks * self.block_size < tokens:
            blocks += 1
        return blocks

    def used(self) -> int:
        return sum(job.held for job in self.residents)

    def free(self) -> int:
        return self.total_blocks - self.used()

    def take(self, job: Job, count: int) -> None:
        assert count <= self.free()
        job.held += count

    def release(self, job: Job) -> None:
        job.held = 0

    # --- steps ---

    def decode(self, job: Job) -> None:
        self.batch.append(Slice(job, 1, job.computed, decode=True))

    def prefill(self, job: Job, tokens: int) -> None:
        assert tokens > 0
        self.batch.append(Slice(job, tokens, job.computed, decode=False))

    def obtain(self, job: Job, count: int) -> bool:
        """Get blocks for a ready resident; while there are none, preempt the ready one of lowest priority."""
        while self.free() < count:
            victim = self.ready()[-1]
            self.preempt(victim)
            if victim is job:
                return False
        self.take(job, count)
        return True

    def preempt(self, job: Job) -> None:
        """Back to the front of the queue; what it has produced joins what it must run again."""
        self.residents.remove(job)
        self.release(job)
        job.target = job.request.prompt_tokens + job.generated
        job.computed = 0
        job.preemptions += 1
        self.waiting.insert(0, job)
        self.preempted_since_last_batch += 1
