"""Policies side by side: each metric of each run, and which run is best in it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from traces.metrics import Metrics

Better = Literal["low", "high", "neither"]
TIE = 0.005
LATENCY, STALLS, THROUGHPUT, LOAD = "Latency", "Generation stalls", "Throughput", "Batches and hardware"
FAILURES = "Failures of replicas"


@dataclass(frozen=True, kw_only=True)
class Score:
    """One metric of every run.

    Attributes
    ----------
    section, label
        Where it belongs, and its name with its unit.
    values, texts
        One a run; NaN and "–" where there is none.
    best
        Indices of the runs that are best in it; empty where better has no meaning or all are equal.
    rankable
        Whether one of two values is better.
    """

    section: str
    label: str
    values: tuple[float, ...]
    texts: tuple[str, ...]
    best: frozenset[int]
    rankable: bool


@dataclass(frozen=True, kw_only=True)
class _Row:
    section: str
    name: str
    unit: Literal["time", "percent", "count", "none"]
    better: Better
    value: Callable[[Metrics], float]


def _latency(name: str, metric: str, figures: Sequence[str]) -> list[_Row]:
    return [
        _Row(
            section=LATENCY,
            name=f"{name} {figure if figure == 'max' else figure.upper()}",
            unit="time",
            better="low",
            value=lambda m, figure=figure: getattr(getattr(m, metric), figure),  # type: ignore[misc]
        )
        for figure in figures
    ]


def _row(
    section: str,
    name: str,
    value: Callable[[Metrics], float],
    better: Better = "neither",
    unit: Literal["time", "percent", "count", "none"] = "none",
) -> _Row:
    return _Row(section=section, name=name, unit=unit, better=better, value=value)


def _rows() -> list[_Row]:
    return [
        *_latency("TTFT", "ttft_s", ("p50", "p90", "p99")),
        *_latency("TBT", "tbt_s", ("p50", "p99", "max")),
        *_latency("TPOT", "tpot_s", ("p50", "p99")),
        *_latency("End-to-end", "end_to_end_s", ("p50", "p99")),
        *_latency("Scheduling delay", "scheduling_delay_s", ("p50", "p99")),
        *_latency("KV transfer", "transfer_s", ("p50", "p99")),
        _row(STALLS, "Stalls", lambda m: m.stalls.count, "low", "count"),
        _row(STALLS, "Longest stall", lambda m: m.stalls.longest_s, "low", "time"),
        _row(STALLS, "All stalls together", lambda m: m.stalls.total_s, "low", "time"),
        _row(THROUGHPUT, "Requests/s", lambda m: m.throughput.requests_per_s, "high"),
        _row(THROUGHPUT, "Output tokens/s", lambda m: m.throughput.output_tokens_per_s, "high"),
        _row(THROUGHPUT, "All tokens/s", lambda m: m.throughput.total_tokens_per_s, "high"),
        _row(THROUGHPUT, "Goodput", _goodput_share, "high", "percent"),
        _row(THROUGHPUT, "Goodput, requests/s", _goodput_rate, "high"),
        _row(THROUGHPUT, "Makespan", lambda m: m.makespan_s, "low", "time"),
        _row(LOAD, "Tokens an iteration", lambda m: m.batch.tokens.mean),
        _row(LOAD, "Decodes an iteration", lambda m: m.batch.decodes.mean),
        _row(LOAD, "Waiting, mean", lambda m: m.queue_length.mean, "low"),
        _row(LOAD, "Waiting, max", lambda m: m.queue_length.max, "low", "count"),
        _row(LOAD, "KV use, mean", lambda m: m.kv_use.mean, "neither", "percent"),
        _row(LOAD, "KV use, max", lambda m: m.kv_use.max, "neither", "percent"),
        _row(LOAD, "Preemptions", lambda m: m.preemptions, "low", "count"),
        _row(LOAD, "MFU while busy", lambda m: m.mfu.busy, "high", "percent"),
        _row(LOAD, "Bubbles", bubble_share, "neither", "percent"),
        _row(LOAD, "Bubble time of a request, P50", lambda m: m.bubble_s.p50, "low", "time"),
        _row(LOAD, "Unfinished requests", lambda m: m.unfinished, "low", "count"),
        _row(FAILURES, "Failures", _if_failed(lambda m: m.failures.count), "neither", "count"),
        _row(FAILURES, "Down time, all replicas", _if_failed(lambda m: m.failures.downtime_s), "neither", "time"),
        _row(FAILURES, "Requests sent back", _if_failed(lambda m: m.failures.requests), "low", "count"),
        _row(FAILURES, "KV tokens lost", _if_failed(lambda m: m.failures.tokens), "low", "count"),
        _row(FAILURES, "Requests restarted", _if_failed(lambda m: m.restarted_requests), "low", "count"),
    ]


def _if_failed(value: Callable[[Metrics], float]) -> Callable[[Metrics], float]:
    """Return a metric that only a run with failures has."""
    return lambda metrics: value(metrics) if metrics.failures.count else math.nan


def bubble_share(metrics: Metrics) -> float:
    """Return the time that stages waited while a batch was in flight elsewhere, over that and their busy time."""
    waited_s = sum(stage.in_flight_s for stage in metrics.bubbles)
    whole_s = waited_s + sum(stage.busy_s for stage in metrics.bubbles)
    return waited_s / whole_s if whole_s > 0 else math.nan


def _goodput_share(metrics: Metrics) -> float:
    return math.nan if metrics.goodput is None else metrics.goodput.share


def _goodput_rate(metrics: Metrics) -> float:
    return math.nan if metrics.goodput is None else metrics.goodput.requests_per_s


def scoreboard(runs: Mapping[str, Metrics]) -> list[Score]:
    """Return every metric that any run has, in the order in which to show them.

    A run is best in a metric if no other is better by more than 0.5 %; where all are that close, none is. A
    run that left more requests unfinished than another is best in nothing: its figures leave the slow ones
    out.
    """
    metrics = list(runs.values())
    fewest = min((each.unfinished for each in metrics), default=0)
    fair = [each.unfinished == fewest for each in metrics]
    scores = [_score(row, [float(row.value(each)) for each in metrics], fair) for row in _rows()]
    return [score for score in scores if any(not math.isnan(value) for value in score.values)]


def _score(row: _Row, values: list[float], fair: list[bool]) -> Score:
    suffix, scale = _unit(row, values)
    texts = [_count(v) if row.unit == "count" else three_digits(v * scale) for v in values]
    return Score(
        section=row.section,
        label=row.name + suffix,
        values=tuple(values),
        texts=tuple(texts),
        best=_best(row.better, values, fair),
        rankable=row.better != "neither",
    )


def _unit(row: _Row, values: list[float]) -> tuple[str, float]:
    if row.unit == "time":
        most = max((value for value in values if not math.isnan(value)), default=0.0)
        return (" (s)", 1.0) if most >= 10 else (" (ms)", 1e3)
    return (" (%)", 100.0) if row.unit == "percent" else ("", 1.0)


def _best(better: Better, values: list[float], fair: list[bool]) -> frozenset[int]:
    known = [index for index, value in enumerate(values) if fair[index] and not math.isnan(value)]
    if better == "neither" or not known or len(values) < 2:
        return frozenset()
    top = (min if better == "low" else max)(values[index] for index in known)
    best = frozenset(index for index in known if _equal(values[index], top))
    return frozenset() if len(best) == len(values) else best


def _equal(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=TIE, abs_tol=1e-9)


def three_digits(value: float) -> str:
    """Return a number with about three digits that count, thousands apart; "–" for NaN."""
    if math.isnan(value):
        return "–"
    size = abs(value)
    if size < 0.0005:
        return "0"
    digits = 0 if size >= 99.95 else 1 if size >= 9.995 else 2 if size >= 0.9995 else 3
    return f"{value:,.{digits}f}"


def _count(value: float) -> str:
    return "–" if math.isnan(value) else f"{round(value):,}"


def duration(time_s: float) -> str:
    """Return a time as people say it: ``"43.1 ms"``, ``"1.23 s"``; "–" for NaN."""
    if math.isnan(time_s):
        return "–"
    return f"{three_digits(time_s)} s" if time_s >= 1 else f"{three_digits(1e3 * time_s)} ms"
