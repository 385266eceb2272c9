"""What came out of a simulation, in few enough numbers to keep those of thousands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import nan
from typing import Any

import numpy as np

from simulator.trials.backlog import present, service_per_s
from traces.goodput import GoodputRule
from traces.metrics import Metrics, measure
from traces.run_record import RunRecord
from traces.workload import FloatColumn

WINDOWS = 20
"""Equal parts of the requests, in order of arrival, whose latencies an outcome keeps: how they drift."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One simulation, summed up; NaN where there is no value.

    Attributes
    ----------
    requests
        How many there were.
    metrics
        By the names of :data:`METRICS`; seconds, shares, and amounts a second.
    scheduling_delay_s, ttft_s
        Means over :data:`WINDOWS` equal parts of the requests, in order of arrival.
    present
        Requests in the system at the ends of :data:`WINDOWS` equal parts of the time in which they arrived.
    offered_per_s
        Requests over the time from the first arrival to the last.
    service_per_s
        Requests served a second as long as others waited (:func:`simulator.trials.backlog.service_per_s`).
    """

    requests: int
    metrics: Mapping[str, float]
    scheduling_delay_s: tuple[float, ...]
    ttft_s: tuple[float, ...]
    present: tuple[float, ...]
    offered_per_s: float
    service_per_s: float

    @staticmethod
    def of(run: RunRecord, goodput: GoodputRule | None = None) -> Outcome:
        """Return what a run was worth."""
        requests = run.requests
        span_s = float(requests.arrival_s[-1] - requests.arrival_s[0])
        return Outcome(
            requests=len(requests),
            metrics=figures(measure(run, goodput)),
            scheduling_delay_s=_windows(requests.scheduled_s - requests.arrival_s),
            ttft_s=_windows(requests.first_token_s - requests.arrival_s),
            present=tuple(map(float, present(run, WINDOWS))),
            offered_per_s=(len(requests) - 1) / span_s if span_s > 0 else nan,
            service_per_s=service_per_s(run),
        )

    def as_dict(self) -> dict[str, Any]:
        """Return what :meth:`from_dict` takes, as JSON values: null for NaN."""
        document: dict[str, Any] = _nulls(asdict(self))
        return document

    @staticmethod
    def from_dict(document: Mapping[str, Any]) -> Outcome:
        """Return the outcome that :meth:`as_dict` described, bit for bit.

        Raises
        ------
        KeyError, TypeError, ValueError
            If it is none.
        """
        return Outcome(
            requests=int(document["requests"]),
            metrics={str(name): _number(value) for name, value in document["metrics"].items()},
            scheduling_delay_s=tuple(map(_number, document["scheduling_delay_s"])),
            ttft_s=tuple(map(_number, document["ttft_s"])),
            present=tuple(map(_number, document["present"])),
            offered_per_s=_number(document["offered_per_s"]),
            service_per_s=_number(document["service_per_s"]),
        )


def figures(metrics: Metrics) -> dict[str, float]:
    """Return the numbers of a run by which deployments are compared, by name."""
    found = {
        f"{name} {figure.upper()}": float(getattr(getattr(metrics, field), figure))
        for name, field in LATENCIES.items()
        for figure in FIGURES
    }
    goodput = metrics.goodput
    return {
        **found,
        "Requests/s": metrics.throughput.requests_per_s,
        "Output tokens/s": metrics.throughput.output_tokens_per_s,
        "All tokens/s": metrics.throughput.total_tokens_per_s,
        "Goodput": nan if goodput is None else goodput.share,
        "Goodput, requests/s": nan if goodput is None else goodput.requests_per_s,
        "Makespan": metrics.makespan_s,
        "Tokens an iteration": metrics.batch.tokens.mean,
        "Decodes an iteration": metrics.batch.decodes.mean,
        "Waiting, mean": metrics.queue_length.mean,
        "KV use, mean": metrics.kv_use.mean,
        "KV use, max": metrics.kv_use.max,
        "Preemptions": float(metrics.preemptions),
        "MFU while busy": metrics.mfu.busy,
    }


LATENCIES = {
    "TTFT": "ttft_s",
    "TBT": "tbt_s",
    "TPOT": "tpot_s",
    "End-to-end": "end_to_end_s",
    "Scheduling delay": "scheduling_delay_s",
}
FIGURES = ("mean", "p50", "p90", "p95", "p99", "max")


def _windows(values: FloatColumn) -> tuple[float, ...]:
    return tuple(float(part.mean()) for part in np.array_split(values, min(WINDOWS, len(values))))


def _number(value: Any) -> float:
    return nan if value is None else float(value)


def _nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _nulls(each) for key, each in value.items()}
    if isinstance(value, tuple):
        return [_nulls(each) for each in value]
    return None if isinstance(value, float) and value != value else value
