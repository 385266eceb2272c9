"""One batch of equal requests, again and again: how long it takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.engine import Engine
from engine.request import Request
from engine.sampling import SamplingParams
from traces.errors import InputError

PERCENTS = (10, 25, 50, 75, 90, 99)
"""Those of ``vllm bench latency``."""


@dataclass(frozen=True, kw_only=True)
class LatencySettings:
    """The batch that a person asked for; each field is the option of that name."""

    batch_size: int = 8
    input_len: int = 32
    output_len: int = 128
    num_iters_warmup: int = 10
    num_iters: int = 30

    def __post_init__(self) -> None:
        for option, least in (
            ("batch_size", 1),
            ("input_len", 1),
            ("output_len", 1),
            ("num_iters_warmup", 0),
            ("num_iters", 1),
        ):
            value = getattr(self, option)
            if value < least:
                where = f"--{option.replace('_', '-')}"
                raise InputError(f"is {value}", where=where, expected=f"an integer >= {least}")


@dataclass(frozen=True, kw_only=True)
class LatencyResult:
    """Seconds of every timed batch: until its last token, its first tokens (mean), each token after (mean)."""

    latencies_s: tuple[float, ...]
    ttft_s: tuple[float, ...]
    tpot_s: tuple[float, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the keys of vLLM's result file (seconds), and the means of TTFT and TPOT in milliseconds."""
        return {
            "avg_latency": float(np.mean(self.latencies_s)),
            "latencies": list(self.latencies_s),
            "percentiles": {str(percent): self.percentile_s(percent) for percent in PERCENTS},
            "mean_ttft_ms": 1e3 * float(np.mean(self.ttft_s)),
            "mean_tpot_ms": 1e3 * float(np.mean(self.tpot_s)) if self.tpot_s else None,
        }

    def percentile_s(self, percent: float) -> float:
        """Return a percentile of the batch latency."""
        return float(np.percentile(self.latencies_s, percent))


def measure_latency(
    engine: Engine, asked: LatencySettings, *, on_progress: Callable[[int], None] | None = None
) -> LatencyResult:
    """Serve the batch ``num_iters_warmup`` times, then ``num_iters`` times under the clock.

    Every time with other random prompts, so that nothing is found in a prefix cache.

    Raises
    ------
    InputError
        If the policy never runs so many requests at once, or a request can never be served.
    """
    most = engine.policy.settings.max_num_seqs
    if asked.batch_size > most:
        what = f"a batch of {asked.batch_size} under a policy with {most} residents"
        raise InputError(what, where="--batch-size", expected=f"at most --max-num-seqs {most}")
    engine.policy.check(asked.input_len, asked.output_len)
    memory = engine.policy.memory
    blocks = asked.batch_size * memory.blocks_for(asked.input_len + asked.output_len)
    if blocks > memory.blocks:
        what = f"a batch of {asked.batch_size} that needs {blocks} KV blocks"
        raise InputError(what, where="--batch-size", expected=f"one that the {memory.blocks} there are hold at once")
    rng = np.random.default_rng(engine.seed)
    timed: list[tuple[float, float, float]] = []
    for iteration in range(asked.num_iters_warmup + asked.num_iters):
        prompts = rng.integers(engine.runner.vocab, size=(asked.batch_size, asked.input_len)).tolist()
        seconds = _run(engine, prompts, asked.output_len)
        if iteration >= asked.num_iters_warmup:
            timed.append(seconds)
        if on_progress is not None:
            on_progress(iteration + 1)
    latencies_s, ttft_s, tpot_s = zip(*timed, strict=True)
    return LatencyResult(latencies_s=latencies_s, ttft_s=ttft_s, tpot_s=tpot_s if asked.output_len > 1 else ())


def _run(engine: Engine, prompts: list[list[int]], output_len: int) -> tuple[float, float, float]:
    """Serve one batch; return its latency, mean TTFT and mean TPOT, in seconds."""
    params = SamplingParams(temperature=0, max_tokens=output_len, ignore_eos=True)
    outcomes = engine.generate(prompts, params)
    sequences = [outcome.sequence for outcome in outcomes if isinstance(outcome, Request)]
    assert len(sequences) == len(prompts), "requests were refused"
    ttft_s = float(np.mean([each.first_token_s - each.arrival_s for each in sequences]))
    gaps_s = [each.finished_s - each.first_token_s for each in sequences]
    latency_s = max(each.finished_s for each in sequences) - sequences[0].arrival_s
    return latency_s, ttft_s, float(np.mean(gaps_s)) / max(1, output_len - 1)
