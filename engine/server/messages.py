"""What the server's process and the engine's process say to each other.

Times are seconds of the machine's monotonic clock (``time.perf_counter``), which all its processes share.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from engine.sampling import SamplingParams, TokenLogprobs
from profiler.deployment import Deployment

Finish = Literal["stop", "length", "cancelled"]


# --- to the engine ---


@dataclass(frozen=True, kw_only=True, slots=True)
class Submit:
    """A request; ``key`` is the server's, unique as long as it runs."""

    key: int
    prompt_token_ids: tuple[int, ...]
    params: SamplingParams
    arrival_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Abort:
    """Requests that nobody waits for any longer: their KV is free before the next iteration."""

    keys: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Swap:
    """Another policy, as the content of a ``policy.json``, from the next iteration on."""

    ticket: int
    policy: dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Stop:
    """End; without ``drain`` whatever is in service is dropped."""

    drain: bool


# --- from the engine ---


@dataclass(frozen=True, kw_only=True, slots=True)
class Ready:
    """The model is loaded.

    Attributes
    ----------
    max_model_len, vocab, kv_blocks, block_size
        Of the engine; lengths in tokens.
    policy
        As ``policy.json`` has it.
    predicts
        Whether there is a cost model, so that each iteration comes with its predicted time.
    deployment, profile
        What runs where, and the measurements its cost model is fitted to (None: those that ship with the package), for
        whoever simulates the engine; no deployment without a cost model.
    """

    max_model_len: int
    vocab: int
    kv_blocks: int
    block_size: int
    policy: dict[str, Any]
    predicts: bool
    deployment: Deployment | None = None
    profile: str | None = None


class Produced(NamedTuple):
    """What an iteration made for one request; a tuple, since there are many and they go from process to process.

    Attributes
    ----------
    token_ids, text, logprobs
        New ones; ``text`` may lag behind the tokens (half characters, the beginning of a stop string).
    finish
        Why it ended, with the last tokens; None while it goes on.
    served
        What became of it, with ``finish``.
    """

    key: int
    token_ids: tuple[int, ...] = ()
    text: str = ""
    logprobs: tuple[TokenLogprobs, ...] = ()
    finish: Finish | None = None
    served: Served | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Served:
    """A request that ended: when what happened, and how much of it there was.

    ``scheduled_s`` and ``first_token_s`` are NaN for what never happened.
    """

    arrival_s: float
    scheduled_s: float
    first_token_s: float
    finished_s: float
    prompt_tokens: int
    cached_tokens: int
    generated_tokens: int
    preemptions: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """The engine after an iteration, or after requests left without one.

    Attributes
    ----------
    waiting, running
        Requests that hold no KV, and that do.
    blocks_used
        KV blocks.
    """

    waiting: int
    running: int
    blocks_used: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One iteration.

    Attributes
    ----------
    produced
        For every request that got a token or ended.
    load
        After it.
    start_s, end_s, model_s
        When it began and ended; the seconds of the model among them.
    predicted_s
        What the cost model says of its batch; None without one.
    prefill_tokens, decodes, preemptions
        Of its batch.
    gaps
        (seconds, count): so many tokens came out so long after the token before of the same request.
    ttfts_s
        From arrival to first token, of the requests that got theirs.
    cache_queries, cache_hits
        Prompt tokens that were looked for, and found, in the prefix cache.
    """

    produced: tuple[Produced, ...]
    load: Load
    start_s: float
    end_s: float
    model_s: float
    predicted_s: float | None
    prefill_tokens: int
    decodes: int
    preemptions: int
    gaps: tuple[tuple[float, int], ...]
    ttfts_s: tuple[float, ...]
    cache_queries: int
    cache_hits: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Idle:
    """Requests left without an iteration: aborted ones, in ``produced``."""

    produced: tuple[Produced, ...]
    load: Load


@dataclass(frozen=True, kw_only=True, slots=True)
class Refused:
    """A request that can never be served, and why, in one line."""

    key: int
    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Failed:
    """Requests whose iteration failed, and why. The engine goes on with the others."""

    keys: tuple[int, ...]
    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Swapped:
    """The answer to :class:`Swap`: the policy that rules now; ``error`` says why it is still the old one."""

    ticket: int
    policy: dict[str, Any]
    error: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Unready:
    """There is no engine as asked for, and what is wrong with what was asked."""

    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Dead:
    """The engine cannot go on: its KV cache does not add up, or one iteration after the other fails."""

    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Stopped:
    """The last message: the engine has drained, or dropped what it had."""


ToEngine = Submit | Abort | Swap | Stop
FromEngine = Ready | Unready | Step | Idle | Refused | Failed | Swapped | Dead | Stopped
