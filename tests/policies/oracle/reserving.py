"""Rules 1, 2 and 4: the policies that reserve ``max_model_len`` tokens for every resident."""

from __future__ import annotations

from oracle.job import Job
from oracle.scheduler import Oracle


class Reserving(Oracle):
    """No watermark, no growth, no preemption."""

    def can_admit(self) -> bool:
        return (
            len(self.waiting) > 0
            and len(self.residents) < self.settings["max_num_seqs"]
            and self.seats() > 0
            and self.free() >= self.blocks_for(self.max_model_len)
        )

    def admit(self) -> Job:
        job = self.waiting.pop(0)
        self.residents.append(job)
        self.take(job, self.blocks_for(self.max_model_len))
        return job

    def decode_all(self) -> None:
        for job in self.ready_decodes():
            if self.seats() > 0:
                self.decode(job)

    def admit_whole_prompts(self) -> None:
        while self.can_admit():
            job = self.admit()
            self.prefill(job, job.target)


class FasterTransformer(Reserving):
    """If any resident is waiting for a decode, decode all of them; otherwise admit whole prompts."""

    def fill(self) -> None:
        if self.ready_decodes():
            self.decode_all()
        else:
            self.admit_whole_prompts()


class Orca(Reserving):
    """All decodes, plus whole prompts into the same batch."""

    def fill(self) -> None:
        self.decode_all()
        self.admit_whole_prompts()


class Sarathi(Reserving):
    """All decodes, plus one chunk that fills the batch up to ``chunk_size`` tokens."""

    def fill(self) -> None:
        self.decode_all()
        left = self.settings["chunk_size"] - self.tokens()
        if left <= 0 or self.seats() <= 0:
            return
        unfinished = self.ready_prefills()
        if unfinished:
            self.prefill(unfinished[0], min(unfinished[0].left, left))
        elif self.can_admit():
            job = self.admit()
            self.prefill(job, min(job.target, left))
