"""What a plain scheduler handles: requests, jobs, slices."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import nan
from typing import NamedTuple


@dataclass(frozen=True)
class Request:
    """What a user sends."""

    request_id: int
    arrival_s: float
    prompt_tokens: int
    output_tokens: int
    block_hashes: tuple[int, ...] = ()


@dataclass(eq=False)
class Job:
    """A request in service, all of its counters plain."""

    request: Request
    place: int
    """Priority: the lower, the sooner served."""
    target: int
    computed: int = 0
    generated: int = 0
    held: int = 0
    """KV blocks it holds."""
    blocks: list[int] = field(default_factory=list)
    """Which ones, where the policy tells them apart."""
    cached_tokens: int = 0
    preemptions: int = 0
    scheduled_s: float = nan
    first_token_s: float = nan
    last_token_s: float = nan
    finished_s: float = nan

    @property
    def request_id(self) -> int:
        return self.request.request_id

    @property
    def decoding(self) -> bool:
        """Whether all of its prompt has run, so that the next token is an output token."""
        return self.computed >= self.target

    @property
    def left(self) -> int:
        return self.target - self.computed


class Slice(NamedTuple):
    """One job's share of a batch; a decode is one token after ``past`` tokens of context."""

    job: Job
    tokens: int
    past: int
    decode: bool

    @property
    def samples(self) -> bool:
        """Whether an output token comes out."""
        return self.decode or self.past + self.tokens == self.job.target
