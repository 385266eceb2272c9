"""What is played, and what is noted of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from oracle.job import Request
from policies import KVMemory, PolicyChoice, choose


@dataclass(frozen=True, kw_only=True)
class Case:
    """A policy, its memory, and what happens to it; ``seed`` draws the durations."""

    policy: str
    settings: dict[str, Any]
    blocks: int
    block_size: int
    max_model_len: int
    stages: int
    requests: tuple[Request, ...]
    seed: int = 0
    eagerness: float = 1.0
    """How likely a free stage is used before the oldest batch comes back."""
    cancels: float = 0.0
    """How likely a request is cancelled, per step."""
    stops: float = 0.0
    """How likely a sequence of a batch stops before its budget, per batch."""

    @property
    def memory(self) -> KVMemory:
        return KVMemory(blocks=self.blocks, block_size=self.block_size, max_model_len=self.max_model_len)

    @property
    def choice(self) -> PolicyChoice:
        return choose(self.policy, **self.settings)


@dataclass(frozen=True, kw_only=True)
class Iteration:
    """A batch as it was scheduled; requests by id."""

    start_s: float
    chunks: tuple[tuple[int, int, int], ...]
    """(request, tokens, past), in the order in which they were scheduled."""
    decodes: tuple[int, ...]
    """Requests, in order of priority."""
    sampled: tuple[int, ...]
    """Requests that get an output token."""
    prefill_tokens: int
    tokens: int
    sequences: int
    outputs: int
    decode_count: int
    context_sum: int
    context_max: int
    prefill_context_sum: int
    preemptions: int
    waiting: tuple[int, ...]
    residents: int
    used_blocks: int


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """What came out of a batch."""

    end_s: float
    started: frozenset[int]
    finished: frozenset[int]
    gaps: tuple[tuple[float, int], ...]
    """(seconds, tokens), ascending, each duration once."""
    residents: int
    used_blocks: int


@dataclass(frozen=True, kw_only=True)
class Cancelled:
    """A user went away."""

    request_id: int
    residents: int
    used_blocks: int


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a request got; times as text, since NaN is not equal to itself."""

    request_id: int
    scheduled_s: str
    first_token_s: str
    finished_s: str
    generated: int
    cached_tokens: int
    preemptions: int
