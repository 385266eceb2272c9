"""Rule 7: vLLM v1, with a prefix cache that is searched block by block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from oracle.job import Job
from oracle.scheduler import Oracle


@dataclass
class Block:
    """A KV block: what it holds, how many hold it, and since when nobody does."""

    number: int
    idle_since: int
    name: object = None
    holders: int = 0


class VLLMV1(Oracle):
    """Running requests in order of admission, then waiting ones, all within one budget."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.blocks = [Block(number, idle_since=number) for number in range(self.total_blocks)]
        self.moment = self.total_blocks
        self.admissions = 0

    def fill(self) -> None:
        preempted = self.preempted_since_last_batch
        for job in self.ready():
            if job in self.residents:
                self.run(job)
        if self.preempted_since_last_batch == preempted:
            self.admit_waiting()

    def budget(self) -> int:
        return int(self.settings["max_num_batched_tokens"]) - self.tokens()

    def chunk(self, left: int) -> int:
        return min(left, self.settings["long_prefill_token_threshold"] or left, self.budget())

    def run(self, job: Job) -> None:
        tokens = 1 if job.decoding else self.chunk(job.left)
        if self.budget() <= 0 or self.seats() <= 0:
            return
        if self.obtain(job, self.blocks_for(job.computed + tokens) - len(job.blocks)):
            self.put(job, tokens)

    def put(self, job: Job, tokens: int) -> None:
        if job.decoding:
            self.decode(job)
            return
        self.prefill(job, tokens)
        self.name_blocks(job, job.computed, job.computed + tokens)

    def admit_waiting(self) -> None:
        while self.waiting and self.budget() > 0 and self.seats() > 0:
            job = self.waiting[0]
            hits = self.hits(job)
            cached = len(hits) * self.block_size
            tokens = self.chunk(job.target - cached)
            needed = self.blocks_for(job.target if self.needs_whole(job) else cached + tokens) - len(hits)
            idle_hits = [block for block in hits if block.holders == 0]
            if len(self.residents) >= self.settings["max_num_seqs"] or needed > self.free() - len(idle_hits):
                return
            self.waiting.pop(0)
            self.admit(job, hits)
            self.take(job, self.blocks_for(job.computed + tokens) - len(job.blocks))
            self.put(job, tokens)

    def needs_whole(self, job: Job) -> bool:
        """In a pipeline also a preempted job: or two could take each other's blocks for ever."""
        return self.settings["scheduler_reserve_full_isl"] or (self.stages > 1 and job.preemptions > 0)

    def admit(self, job: Job, hits: list[Block]) -> None:
        self.admissions += 1
        job.place = self.admissions
        self.residents.append(job)
        for block in hits:
            block.holders += 1
            job.blocks.append(block.number)
        job.computed = len(hits) * self.block_size
        if job.preemptions == 0:
            job.cached_tokens = job.computed

    # --- the prefix cache ---

    def hits(self, job: Job) -> list[Block]:
        """The longest run of cached full blocks; at least one token is left to run."""
        found: list[Block] = []
        for index in range((job.target - 1) // self.block_size):
            block = self.find(self.content(job, index))
            if block is None:
                break
            found.append(block)
        return found

    def content(self, job: Job, index: int) -> object:
        hashes = job.request.block_hashes
        return hashes[index] if index < len(hashes) else f"request {job.request_id}, block {index}"

    def find(self, name: object) -> Block | None:
        for block in self.blocks:
            if block.name == name:
                return block
        return None

    def name_blocks(self, job: Job, start: int, end: int) -> None:
        """Name the blocks that are full once the tokens [start, end) are there, each content but once."""
        if not self.settings["enable_prefix_caching"]:
            return
        for index, number in enumerate(job.blocks):
            border = (index + 1) * self.block_size
            name = self.content(job, index)
            if start < border <= end and self.blocks[number].name is None and self.find(name) is None:
                self.blocks[number].name = name

    def used(self) -> int:
        return sum(block.holders > 0 for block in self.blocks)

    def take(self, job: Job, count: int) -> None:
        """The blocks that have been idle for longest, which now lose their names."""
        assert count <= self.free()
        for _ in range(count):
            idle = [block for block in self.blocks if block.holders == 0]
            block = min(idle, key=lambda block: block.idle_since)
            block.name = None
            block.holders = 1
            job.blocks.append(block.number)

    def release(self, job: Job) -> None:
        """A sequence that leaves names what it generated; of its blocks the last becomes idle first."""
        self.name_blocks(job, 0, job.computed)
        for number in reversed(job.blocks):
            block = self.blocks[number]
            block.holders -= 1
            if block.holders == 0:
                self.moment += 1
                block.idle_since = self.moment
        job.blocks = []
