"""Slack: what fits until the nearest token deadline, in order of what can wait."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from oracle.costs import COSTS
from oracle.job import Job, Request, Slice
from oracle.paged import Paged

STEP = 64


class Slack(Paged):
    """Everything is counted anew for each batch: deadlines, ratios, lengths, and each number of tokens tried."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.ratios: list[float] = []
        self.ended: list[int] = []
        self.expected: list[tuple[float, float]] = []
        self.now_s = 0.0
        self.asked = self.chosen = self.refused = 0
        self.prompt = 0.0

    # --- the loop ---

    def add(self, request: Request) -> Job:
        job = super().add(request)
        alone_s = COSTS.seconds(-(-request.prompt_tokens // STEP) * STEP, 0, self.stages - 1)
        wait_s = max(self.settings["ttft_s"], self.settings["patience"] * alone_s)
        job.place = (round(1e6 * (request.arrival_s + wait_s)), request.request_id)  # type: ignore[assignment]
        self.sort()
        return job

    def sort(self) -> None:
        self.waiting.sort(key=lambda job: job.place)

    def preempt(self, job: Job) -> None:
        super().preempt(job)
        self.sort()

    def schedule(self, now_s: float) -> list[Slice] | None:
        self.now_s = now_s
        batch = super().schedule(now_s)
        if batch:
            self.expected.append((now_s, self.stages * self.seconds(batch) if self.prompts(batch) else 0.0))
        return batch

    def complete(self, now_s: float, stopped: Iterable[Job] = ()) -> tuple[list[Job], list[Job], list[float]]:
        started_s, expected_s = self.expected.pop(0)
        if expected_s > 0 and now_s > started_s:
            self.ratios.append((now_s - started_s) / expected_s)
        started, finished, gaps = super().complete(now_s, stopped)
        self.ended += [job.generated for job in sorted(finished, key=lambda job: job.place)]
        return started, finished, gaps

    # --- the batch ---

    def fill(self) -> None:
        self.decode_all()
        decodes = list(self.batch)
        most = self.settings["max_num_batched_tokens"] - len(decodes)
        if not (self.ready_prefills() or self.waiting) or most <= 0:
            return
        opens = len(self.waiting) > 0 and self.opens()
        lineup = list(self.lineup(opens))
        if not lineup:
            return
        if self.crowded(decodes, opens):
            most = max(1, self.limit(decodes) - len(decodes))
        limit_s, available = self.time_left_s(decodes), sum(job.left for job in lineup)
        fitting = [
            tokens
            for tokens in range(1, min(most, available) + 1)
            if tokens in (most, available) or (tokens + len(decodes)) % STEP == 0
            if self.seconds_of(tokens, decodes) <= limit_s
        ]
        tokens = max(fitting, default=min(self.block_size, most, available))
        for job in lineup:
            chunk = min(job.left, tokens)
            if chunk > 0:
                self.start(job, chunk)
                tokens -= chunk

    def start(self, job: Job, tokens: int) -> None:
        if job not in self.residents:
            assert self.waiting[0] is job
            self.prompt += (job.left - self.prompt) / (64 if self.prompt else 1)
            self.admit()
        self.prefill(job, tokens)

    def opens(self) -> bool:
        if self.residents and len(self.residents) == self.refused:
            return False
        opens = len(self.residents) < self.settings["max_num_seqs"] and self.fits([self.waiting[0]])
        self.refused = 0 if opens else len(self.residents)
        return opens

    def crowded(self, decodes: list[Slice], opens: bool) -> bool:
        if not decodes or not self.waiting or not self.ended:
            return False
        return not opens or len(self.residents) >= 0.9 * self.settings["max_num_seqs"]

    def limit(self, decodes: list[Slice]) -> int:
        """Chosen anew every 32nd time: the tokens of which each of the prompts' costs the decodes least."""
        outputs, most = self.ended[-256:], self.settings["max_num_batched_tokens"]
        if self.asked % 32 == 0:
            tokens = len(decodes) + 1.2 * len(self.residents) * self.prompt / (sum(outputs) / len(outputs))
            choices = [most]
            while tokens < most:
                choices.append(min(most, -(-int(tokens) // STEP) * STEP))
                tokens = max(1.25 * tokens, tokens + STEP)
            self.chosen = min(choices, key=lambda total: self.extra_s(max(1, total - len(decodes)), decodes))
        self.asked += 1
        return self.chosen

    def extra_s(self, tokens: int, decodes: list[Slice]) -> float:
        return (self.seconds_of(tokens, decodes) - self.seconds_of(0, decodes)) / tokens

    def lineup(self, opens: bool) -> Iterator[Job]:
        admitted: list[Job] = []
        seats = self.settings["max_num_seqs"] - len(self.residents)
        closed, room = False, self.seats()
        for job in sorted([*self.ready_prefills(), *self.waiting], key=lambda job: job.place):
            if job in self.waiting:
                closed = closed or len(admitted) >= seats or not (self.fits([*admitted, job]) if admitted else opens)
                if closed:
                    continue
                admitted.append(job)
            if room > 0:
                yield job
                room -= 1

    def time_left_s(self, decodes: list[Slice]) -> float:
        left_s = self.settings["ttft_s"] / 2
        if decodes:
            left_s = min(piece.job.last_token_s for piece in decodes) + self.settings["tbt_s"] - self.now_s
        recent = sorted(self.ratios[-256:])
        factor = recent[min(len(recent) - 1, int(0.99 * len(recent)))] if len(recent) >= 32 else COSTS.upper
        allowed_s, alone_s = left_s / (self.stages * factor), self.seconds(decodes) if decodes else 0.0
        return allowed_s if alone_s <= allowed_s else 1.25 * alone_s

    def prompts(self, batch: list[Slice]) -> bool:
        return any(not piece.decode for piece in batch)

    def seconds(self, batch: list[Slice]) -> float:
        contexts = sum(piece.past + 1 for piece in batch if piece.decode)
        return COSTS.seconds(sum(piece.tokens for piece in batch), contexts, self.stages - 1)

    def seconds_of(self, tokens: int, decodes: list[Slice]) -> float:
        contexts = sum(piece.past + 1 for piece in decodes)
        return COSTS.seconds(tokens + len(decodes), contexts, self.stages - 1)

    # --- blocks ---

    def fits(self, newcomers: list[Job]) -> bool:
        """Prompts, a share of all blocks, and what everybody is expected to grow by while the others are there."""
        free = self.free() - sum(self.blocks_for(job.target) for job in newcomers)
        free -= int(self.settings["watermark"] * self.total_blocks)
        if free < 0 or not (self.residents or newcomers[1:]):
            return free >= 0
        everyone = len(self.residents) + len(newcomers)
        if free >= everyone * (self.blocks_for(self.rest(0)) + 1):
            return True
        deciding = {piece.job for piece in self.batch}
        seen = [*self.ready_prefills(), *newcomers, *deciding]
        states = sorted((job.generated, job.computed if job in deciding else job.target) for job in seen)
        needs = [
            (held, self.drawn_rest(generated, 0.6180339887498949 * place % 1))
            for place, (generated, held) in enumerate(states)
        ]
        peaks = [sum(held + rest for held, more in needs if more >= rest) for _, rest in needs]
        growth = max(0, max(peaks) - sum(held for held, _ in needs))
        return free >= self.blocks_for(growth * everyone // len(seen))

    def drawn_rest(self, generated: int, share: float) -> int:
        longer = sorted(output for output in self.ended[-256:] if output > generated)
        return longer[int(share * len(longer))] - generated if longer else self.rest(generated)

    def rest(self, generated: int) -> int:
        outputs = self.ended[-256:]
        longer = [output for output in outputs if output > generated]
        if not longer:
            return 1 if outputs else 0
        return sum(longer) // len(longer) - generated
