"""Serving a workload to measure it: nothing is written, and figures come in vLLM's words."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.engine import Engine, Iteration
from engine.progress import OnProgress
from engine.replay import check_lengths, serve
from policies.sequence import Sequence
from traces.goodput import GoodputRule
from traces.percentiles import Distribution
from traces.workload import FloatColumn, Workload


@dataclass(frozen=True, kw_only=True)
class BenchResult:
    """What serving a workload came to.

    Attributes
    ----------
    requests, input_tokens, output_tokens
        That were served; tokens of their prompts and outputs.
    duration_s
        From the first arrival to the last token.
    ttft_s, tpot_s, itl_s
        A value a request; (end-to-end - TTFT) / (n - 1) a request with n > 1; every gap between two tokens.
    iterations, iteration_s
        How many, and their mean time.
    outside_model
        Share of the iterations' time that neither the model nor sampling took.
    peak_kv
        Most KV blocks in use at once, as a share of all.
    good_requests
        Those that met the targets; None where there were none.
    """

    requests: int
    input_tokens: int
    output_tokens: int
    duration_s: float
    ttft_s: Distribution
    tpot_s: Distribution
    itl_s: Distribution
    iterations: int
    iteration_s: float
    outside_model: float
    peak_kv: float
    good_requests: int | None

    def per_s(self, amount: float) -> float:
        """Return ``amount`` per second of the run."""
        return amount / self.duration_s

    def as_dict(self) -> dict[str, Any]:
        """Return the figures under the keys of vLLM's result files, and our own; null where there is no value."""
        good = None if self.good_requests is None else self.per_s(self.good_requests)
        document: dict[str, Any] = {
            "num_requests": self.requests,
            "completed": self.requests,
            "elapsed_time": self.duration_s,
            "total_num_tokens": self.input_tokens + self.output_tokens,
            "total_input_tokens": self.input_tokens,
            "total_output_tokens": self.output_tokens,
            "requests_per_second": self.per_s(self.requests),
            "request_goodput": good,
            "tokens_per_second": self.per_s(self.input_tokens + self.output_tokens),
            "output_throughput": self.per_s(self.output_tokens),
            "iterations": self.iterations,
            "mean_iteration_ms": 1e3 * self.iteration_s,
            "outside_model_share": self.outside_model,
            "peak_kv_share": self.peak_kv,
        }
        for name, found in (("ttft", self.ttft_s), ("tpot", self.tpot_s), ("itl", self.itl_s)):
            for figure, value in (("mean", found.mean), ("median", found.p50), ("p99", found.p99)):
                document[f"{figure}_{name}_ms"] = None if math.isnan(value) else 1e3 * value
        return document


class _Log:
    """Notes what a result needs of every iteration."""

    def __init__(self, on_progress: OnProgress | None) -> None:
        self.finished: list[Sequence] = []
        self.gaps: list[tuple[float, int]] = []
        self.spent_s: list[tuple[float, float]] = []
        self.blocks_used = 0
        self.end_s = 0.0
        self._on_progress = on_progress

    def take(self, iteration: Iteration) -> None:
        self.gaps += iteration.done.gaps
        self.spent_s.append((iteration.end_s - iteration.start_s, iteration.model_s))
        self.blocks_used = max(self.blocks_used, iteration.blocks_used)
        self.end_s = iteration.end_s
        if iteration.finished:
            self.finished += [request.sequence for request in iteration.finished]
            if self._on_progress is not None:
                self._on_progress(len(self.finished))


def measure_throughput(
    engine: Engine, workload: Workload, *, goodput: GoodputRule | None = None, on_progress: OnProgress | None = None
) -> BenchResult:
    """Serve ``workload`` at its arrival times, with random prompts of its lengths, and return the figures.

    Parameters
    ----------
    engine
        Fresh: it has served nothing yet.
    goodput
        Targets that a request must meet to count.
    on_progress
        Called with the number of finished requests after each iteration that finished one.

    Raises
    ------
    InputError
        If a request can never be served.
    """
    check_lengths(engine, workload)
    engine.runner.warm_up()
    log = _Log(on_progress)
    serve(engine, workload, log.take)
    assert len(log.finished) == len(workload), "requests were left behind"
    ttft_s, tpot_s, end_to_end_s = _latencies(log.finished)
    gaps = np.array(log.gaps, dtype=np.float64).reshape(-1, 2)
    iteration_s, model_s = np.array(log.spent_s).T
    return BenchResult(
        requests=len(workload),
        input_tokens=int(workload.prompt_tokens.sum()),
        output_tokens=sum(sequence.generated for sequence in log.finished),
        duration_s=log.end_s - float(workload.arrival_s[0]),
        ttft_s=Distribution.of(ttft_s),
        tpot_s=Distribution.of(tpot_s[~np.isnan(tpot_s)]),
        itl_s=Distribution.of_counts(gaps[:, 0], gaps[:, 1].astype(np.int64)),
        iterations=len(iteration_s),
        iteration_s=float(iteration_s.mean()),
        outside_model=1 - float(model_s.sum() / iteration_s.sum()),
        peak_kv=log.blocks_used / engine.runner.memory.blocks,
        good_requests=None if goodput is None else int(goodput.met(ttft_s, tpot_s, end_to_end_s).sum()),
    )


def _latencies(sequences: list[Sequence]) -> tuple[FloatColumn, FloatColumn, FloatColumn]:
    """Return TTFT, TPOT (NaN for a single token) and end-to-end latency, float64 [requests] each."""
    arrival_s, first_s, last_s, generated = np.array(
        [(each.arrival_s, each.first_token_s, each.finished_s, each.generated) for each in sequences]
    ).T
    gaps = np.where(generated > 1, generated - 1, np.nan)
    return first_s - arrival_s, (last_s - first_s) / gaps, last_s - arrival_s
