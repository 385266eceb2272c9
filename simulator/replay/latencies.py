"""Latencies of a real run beside those of its simulation, as the summaries of published runs define them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from simulator.replay.published_run import Measured
from simulator.replay.summary import Key, Summary
from traces.run_record import RunRecord
from traces.workload import FloatColumn, IntColumn

FIGURES = {"Mean": None, "Median": 50.0, "P90": 90.0, "P95": 95.0, "P99": 99.0}
ROUNDING_S = 1e-4
"""Summaries give tenths of milliseconds."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Latencies:
    """Latencies of the requests of one run, float64 [requests] seconds each.

    Both clocks start when the engine takes a request over, as the published summaries have it: it does so between
    two iterations. ``tpot_s`` is (last token - first token) / (output tokens - 1), without requests of one token.
    """

    ttft_s: FloatColumn
    tpot_s: FloatColumn
    latency_s: FloatColumn

    @staticmethod
    def measured(run: Measured) -> Latencies:
        """Return those of the real run."""
        return _latencies(run.queued_s, run.first_token_s, run.last_token_s, run.output_tokens)

    @staticmethod
    def simulated(run: RunRecord) -> Latencies:
        """Return those of its simulation, on one replica."""
        requests = run.requests
        return _latencies(queued(run), requests.first_token_s, requests.finished_s, requests.output_tokens)

    def named(self) -> dict[str, FloatColumn]:
        """Return the columns by the names of the summaries."""
        return {"TTFT": self.ttft_s, "TPOT": self.tpot_s, "Latency": self.latency_s}

    def figures(self) -> dict[Key, float]:
        """Return mean and percentiles (between samples linear) of each metric."""
        return {
            (name, figure): float(np.mean(values) if percent is None else np.percentile(values, percent))
            for name, values in self.named().items()
            if len(values)
            for figure, percent in FIGURES.items()
        }


def _latencies(queued_s: FloatColumn, first_s: FloatColumn, last_s: FloatColumn, outputs: IntColumn) -> Latencies:
    several = outputs > 1
    tpot_s = (last_s[several] - first_s[several]) / (outputs[several] - 1)
    return Latencies(ttft_s=first_s - queued_s, tpot_s=tpot_s, latency_s=last_s - queued_s)


def queued(run: RunRecord) -> FloatColumn:
    """Return when the engine took each request over: when the iteration ended that ran at its arrival."""
    arrival_s, iterations = run.requests.arrival_s, run.iterations
    index = np.minimum(np.searchsorted(iterations.end_s, arrival_s), len(iterations.end_s) - 1)
    busy = (iterations.start_s[index] < arrival_s) & (arrival_s <= iterations.end_s[index])
    return np.asarray(np.where(busy, iterations.end_s[index], arrival_s), dtype=np.float64)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One figure of one metric, in seconds; errors are relative, the other simulator's None where not known."""

    key: Key
    measured_s: float
    simulated_s: float
    error: float
    other_error: float | None


def compare(measured: Latencies, simulated: Latencies, summary: Summary | None) -> list[Row]:
    """Return every figure of the real run with our error and that of the other simulator."""
    ours = simulated.figures()
    return [
        Row(
            key=key,
            measured_s=value,
            simulated_s=ours[key],
            error=ours[key] / value - 1,
            other_error=None if summary is None else summary.error(key),
        )
        for key, value in measured.figures().items()
    ]


def disagreements(rows: list[Row], summary: Summary | None) -> Iterator[str]:
    """Yield what the summary says of the real run that its requests do not bear out."""
    for row in rows:
        said = None if summary is None else summary.measured_s.get(row.key)
        if said is not None and abs(said - row.measured_s) > ROUNDING_S:
            name = " ".join(row.key)
            yield f"summary.txt says {name} {1e3 * said:,.1f} ms, requests.jsonl {1e3 * row.measured_s:,.1f} ms"
