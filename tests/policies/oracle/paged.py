"""Rules 3, 5 and 6: a prompt's blocks at admission, then one more at every block border."""

from __future__ import annotations

from oracle.job import Job
from oracle.scheduler import Oracle


class Paged(Oracle):
    """The watermark keeps a share of all blocks free at admission; a decode that finds none preempts."""

    def can_admit(self) -> bool:
        return (
            len(self.waiting) > 0
            and len(self.residents) < self.settings["max_num_seqs"]
            and self.seats() > 0
            and self.free() - self.blocks_for(self.waiting[0].target)
            >= int(self.settings["watermark"] * self.total_blocks)
        )

    def admit(self) -> Job:
        job = self.waiting.pop(0)
        self.residents.append(job)
        self.take(job, self.blocks_for(job.target))
        return job

    def decode_all(self) -> None:
        for job in self.ready_decodes():
            if job in self.residents and self.seats() > 0 and self.find_room(job):
                self.decode(job)

    def find_room(self, job: Job) -> bool:
        """A decode needs a new block when the tokens in its KV are a multiple of the block size."""
        return job.computed % self.block_size != 0 or self.obtain(job, 1)

    def continue_prefills(self, budget: int) -> None:
        for job in self.ready_prefills():
            tokens = min(job.left, budget - self.tokens())
            if tokens > 0 and self.seats() > 0:
                self.prefill(job, tokens)

    def admit_chunks(self, budget: int) -> None:
        while budget - self.tokens() > 0 and self.can_admit():
            job = self.admit()
            self.prefill(job, min(job.target, budget - self.tokens()))


class VLLM(Paged):
    """Whole prompts first, within the token limit; decodes only if none was admitted."""

    def fill(self) -> None:
        limit = self.settings["max_num_batched_tokens"] or self.max_model_len
        while self.can_admit() and self.tokens() + self.waiting[0].target <= limit:
            job = self.admit()
            self.prefill(job, job.target)
        if not self.batch:
            self.decode_all()


class SarathiServe(Paged):
    """Decodes, then unfinished prompts, then new ones, within the token budget."""

    def budget(self) -> int:
        return int(self.settings["max_num_batched_tokens"])

    def fill(self) -> None:
        self.decode_all()
        self.continue_prefills(self.budget())
        self.admit_chunks(self.budget())


class HybridOnly(SarathiServe):
    """The budget is a whole context."""

    def budget(self) -> int:
        return self.max_model_len


class ChunkedOnly(Paged):
    """Prefill turns and decode turns alternate; a turn with nothing to do passes to the other kind."""

    turn = "prefill"

    def fill(self) -> None:
        self.take_turn(self.turn)
        if not self.batch:
            self.take_turn("decode" if self.turn == "prefill" else "prefill")
        if self.batch:
            self.turn = "prefill" if self.batch[0].decode else "decode"

    def take_turn(self, turn: str) -> None:
        budget = self.settings["max_num_batched_tokens"]
        if turn == "decode":
            self.decode_all()
        elif self.ready_prefills():
            self.continue_prefills(budget)
        else:
            self.admit_chunks(budget)
