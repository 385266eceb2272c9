"""What ``bench`` prints: the summary that users of ``vllm bench`` know, line by line."""

from __future__ import annotations

import math

from engine.bench_latency import PERCENTS, LatencyResult
from engine.bench_measure import BenchResult
from traces.percentiles import Distribution

WIDTH, LABEL = 58, 44
LATENCIES = (
    ("Time to First Token", "TTFT", "ttft_s"),
    ("Time per Output Token (excl. 1st token)", "TPOT", "tpot_s"),
    ("Inter-token Latency", "ITL", "itl_s"),
)


def print_throughput(title: str, result: BenchResult) -> None:
    """Print one throughput run."""
    print(title)
    print(_ruled("Serving Benchmark Result", "="))
    _line("Successful requests:", f"{result.requests:,}")
    _line("Benchmark duration (s):", f"{result.duration_s:,.2f}")
    _line("Total input tokens:", f"{result.input_tokens:,}")
    _line("Total generated tokens:", f"{result.output_tokens:,}")
    _line("Request throughput (req/s):", f"{result.per_s(result.requests):,.2f}")
    if result.good_requests is not None:
        _line("Request goodput (req/s):", f"{result.per_s(result.good_requests):,.2f}")
    _line("Output token throughput (tok/s):", f"{result.per_s(result.output_tokens):,.2f}")
    _line("Total token throughput (tok/s):", f"{result.per_s(result.input_tokens + result.output_tokens):,.2f}")
    for name, short, field in LATENCIES:
        _latency(name, short, getattr(result, field))
    print(_ruled("Engine", "-"))
    _line("Iterations:", f"{result.iterations:,}")
    _line("Mean iteration (ms):", f"{1e3 * result.iteration_s:,.2f}")
    _line("Time outside the model (%):", f"{100 * result.outside_model:.1f}")
    _line("Peak KV cache usage (%):", f"{100 * result.peak_kv:.1f}")
    print("=" * WIDTH)


def print_latency(title: str, result: LatencyResult) -> None:
    """Print one latency run."""
    document = result.as_dict()
    print(title)
    print(_ruled("Latency Benchmark Result", "="))
    _line("Timed batches:", f"{len(result.latencies_s):,}")
    _line("Avg latency (s):", f"{document['avg_latency']:,.4f}")
    for percent in PERCENTS:
        _line(f"{percent}% percentile latency (s):", f"{result.percentile_s(percent):,.4f}")
    _line("Mean TTFT (ms):", f"{document['mean_ttft_ms']:,.2f}")
    if document["mean_tpot_ms"] is not None:
        _line("Mean TPOT (ms):", f"{document['mean_tpot_ms']:,.2f}")
    print("=" * WIDTH)


def _latency(name: str, short: str, found: Distribution) -> None:
    print(_ruled(name, "-"))
    for figure, value in (("Mean", found.mean), ("Median", found.p50), ("P99", found.p99)):
        _line(f"{figure} {short} (ms):", "n/a" if math.isnan(value) else f"{1e3 * value:,.2f}")


def _ruled(text: str, rule: str) -> str:
    return f" {text} ".center(WIDTH, rule)


def _line(label: str, value: str) -> None:
    print(f"{label:<{LABEL}}{value:>{WIDTH - LABEL}}")
