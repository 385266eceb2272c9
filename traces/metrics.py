"""The metrics of a run, computed from its record."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from traces.downtime import FailureCost, failure_cost
from traces.goodput import GoodputRule
from traces.percentiles import EMPTY, Distribution
from traces.run_columns import RequestColumns, RunRecord
from traces.stalls import Stalls, find_stalls, summarise_stalls
from traces.step_function import blocks_in_use, queue_length
from traces.utilisation import (
    BatchComposition,
    ModelFlopsUtilisation,
    StageBubbles,
    batch_composition,
    model_flops_utilisation,
    stage_bubbles,
)
from traces.workload import FloatColumn


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """Finished requests, output tokens, and prompt + output tokens, per second of the makespan.

    A prompt counts once its first output token is out; recomputed tokens do not count again.
    """

    requests_per_s: float
    output_tokens_per_s: float
    total_tokens_per_s: float


@dataclass(frozen=True, kw_only=True)
class Goodput:
    """Requests that met every target of ``rule``: their share of all requests, and how many per second."""

    rule: GoodputRule
    share: float
    requests_per_s: float


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """What a run was worth.

    Attributes
    ----------
    requests, finished, unfinished
        Requests that arrived, those that got their last token, and the others.
    makespan_s
        From the first arrival to the end of the last iteration.
    ttft_s
        From arrival to the first token, of the requests that got one.
    tbt_s
        Every time between two tokens of a request; the first token has none.
    tpot_s
        (end-to-end - TTFT) / (n - 1) of the finished requests with n > 1 tokens.
    end_to_end_s
        From arrival to the last token, of the finished requests.
    scheduling_delay_s
        From arrival to the start of the first iteration that held the request.
    goodput
        None where no targets were given.
    preemptions, preempted_requests
        How often a request lost its KV for lack of blocks, and how many requests did.
    restarts, restarted_requests
        How often the replica under a request failed, and how many requests that happened to.
    failures
        What the failures of replicas cost.
    cached_share
        Prompt tokens found in the prefix cache, over all prompt tokens of scheduled requests.
    transfer_s
        Time that the KV of a request took from a prefill to a decode replica, of the requests that moved.
    kv_use
        Blocks in use over all blocks, over time.
    queue_length
        Requests that wait, on all replicas together, over time.
    bubbles
        One entry a stage and replica.
    bubble_s
        Bubbles of the micro-batches of a request, summed, of the finished requests; of none with one stage.
    """

    requests: int
    finished: int
    unfinished: int
    makespan_s: float
    ttft_s: Distribution
    tbt_s: Distribution
    tpot_s: Distribution
    end_to_end_s: Distribution
    scheduling_delay_s: Distribution
    throughput: Throughput
    goodput: Goodput | None
    preemptions: int
    preempted_requests: int
    restarts: int
    restarted_requests: int
    failures: FailureCost
    cached_share: float
    transfer_s: Distribution
    kv_use: Distribution
    queue_length: Distribution
    batch: BatchComposition
    mfu: ModelFlopsUtilisation
    bubbles: tuple[StageBubbles, ...]
    bubble_s: Distribution
    stalls: Stalls

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON values, in the order above; null where there is no value."""
        document: dict[str, Any] = without_nan(asdict(self))
        return document


@dataclass(frozen=True, kw_only=True, eq=False)
class Latencies:
    """The latencies of every request, float64 [requests], NaN where one never got so far."""

    ttft_s: FloatColumn
    tpot_s: FloatColumn
    end_to_end_s: FloatColumn
    scheduling_delay_s: FloatColumn

    @classmethod
    def of(cls, requests: RequestColumns) -> Latencies:
        """Return the latencies of ``requests``."""
        gaps = np.where(requests.generated_tokens > 1, requests.generated_tokens - 1, np.nan)
        return cls(
            ttft_s=requests.first_token_s - requests.arrival_s,
            tpot_s=(requests.finished_s - requests.first_token_s) / gaps,
            end_to_end_s=requests.finished_s - requests.arrival_s,
            scheduling_delay_s=requests.scheduled_s - requests.arrival_s,
        )


def measure(run: RunRecord, goodput: GoodputRule | None = None, *, stall_threshold_s: float | None = None) -> Metrics:
    """Compute the metrics of a run.

    Parameters
    ----------
    goodput
        Targets, from :func:`traces.goodput.parse_goodput`.
    stall_threshold_s
        From which gap on it is a generation stall; by default from this run alone. Runs that are compared need
        one threshold: :func:`traces.stalls.stall_threshold`.
    """
    requests, latencies = run.requests, Latencies.of(run.requests)
    makespan_s = run.end_s - run.start_s
    stalls = summarise_stalls(find_stalls(run, stall_threshold_s))
    done = ~np.isnan(requests.finished_s)
    finished = int(done.sum())
    return Metrics(
        requests=len(requests),
        finished=finished,
        unfinished=len(requests) - finished,
        makespan_s=makespan_s,
        ttft_s=_known(latencies.ttft_s),
        tbt_s=run.tbt_s,
        tpot_s=_known(latencies.tpot_s),
        end_to_end_s=_known(latencies.end_to_end_s),
        scheduling_delay_s=_known(latencies.scheduling_delay_s),
        throughput=_throughput(requests, finished, makespan_s),
        goodput=None if goodput is None else _goodput(goodput, latencies, makespan_s),
        preemptions=int(run.requests.preemptions.sum()),
        preempted_requests=int((requests.preemptions > 0).sum()),
        restarts=int(requests.restarts.sum()),
        restarted_requests=int((requests.restarts > 0).sum()),
        failures=failure_cost(run),
        cached_share=_cached_share(requests),
        transfer_s=Distribution.of(requests.transfer_s[requests.transfer_s > 0]),
        kv_use=blocks_in_use(run).distribution(run.meta.kv_blocks),
        queue_length=queue_length(run).distribution(),
        batch=batch_composition(run, makespan_s),
        mfu=model_flops_utilisation(run, makespan_s),
        bubbles=stage_bubbles(run),
        bubble_s=Distribution.of(requests.bubble_s[done]) if run.meta.stages > 1 else EMPTY,
        stalls=stalls,
    )


def _known(latencies: FloatColumn) -> Distribution:
    return Distribution.of(latencies[~np.isnan(latencies)])


def _per_s(amount: float, makespan_s: float) -> float:
    return float(amount) / makespan_s if makespan_s > 0 else math.nan


def _throughput(requests: RequestColumns, finished: int, makespan_s: float) -> Throughput:
    output = int(requests.generated_tokens.sum())
    prompts = int(requests.prompt_tokens[~np.isnan(requests.first_token_s)].sum())
    return Throughput(
        requests_per_s=_per_s(finished, makespan_s),
        output_tokens_per_s=_per_s(output, makespan_s),
        total_tokens_per_s=_per_s(prompts + output, makespan_s),
    )


def _goodput(rule: GoodputRule, latencies: Latencies, makespan_s: float) -> Goodput:
    good = rule.met(latencies.ttft_s, latencies.tpot_s, latencies.end_to_end_s)
    share = float(good.mean()) if len(good) else math.nan
    return Goodput(rule=rule, share=share, requests_per_s=_per_s(int(good.sum()), makespan_s))


def _cached_share(requests: RequestColumns) -> float:
    prompts = int(requests.prompt_tokens[~np.isnan(requests.scheduled_s)].sum())
    return float(requests.cached_tokens.sum()) / prompts if prompts else 0.0


def without_nan(value: Any) -> Any:
    """Return a document with None for every number that JSON does not know."""
    if isinstance(value, Mapping):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
