"""Who wins and why, in plain words, from the metrics alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from simulator.scoreboard import TIE, duration, scoreboard, three_digits
from traces.metrics import Metrics

KEEPS_UP_S = 2.0
CLOSE = 1.05
Runs = Mapping[str, Metrics]


def verdicts(runs: Runs) -> list[str]:
    """Return a few sentences: which run serves the workload best, by how much, and what explains it.

    Latencies are compared among the :func:`contenders` only, for a run that admits few requests has smooth
    decodes and a queue that grows for ever. A single run is described.
    """
    if len(runs) < 2:
        return [_description(name, metrics) for name, metrics in runs.items()]
    field = contenders(runs)
    sentences = [
        _winner(runs),
        _behind(runs),
        _goodput(runs),
        _among(field, runs, _tbt(field)),
        _among(field, runs, _ttft(field)),
        _throughput(runs),
        _wins(runs),
        _caveats(runs),
    ]
    return [sentence for sentence in sentences if sentence]


def _among(field: Runs, runs: Runs, sentence: str) -> str:
    return f"Of those that serve the load: {sentence}" if sentence and len(field) < len(runs) else sentence


def keeping_up(runs: Runs) -> dict[str, Metrics]:
    """Return the runs with a median scheduling delay up to 2 s that leave no more unfinished than any other.

    2 s is the limit in the SLO of Sarathi-Serve (OSDI'24, section 5.1).
    """
    fewest = min((metrics.unfinished for metrics in runs.values()), default=0)
    return {
        name: metrics
        for name, metrics in runs.items()
        if metrics.scheduling_delay_s.p50 <= KEEPS_UP_S and metrics.unfinished == fewest
    }


def contenders(runs: Runs) -> dict[str, Metrics]:
    """Return the runs that keep up (all, where none does) with output tokens/s within 5 % of the most."""
    field = keeping_up(runs) or dict(runs)
    most = max(_output_rate(metrics) for metrics in field.values())
    return {name: m for name, m in field.items() if not _output_rate(m) * CLOSE < most}


def winner(runs: Runs) -> str:
    """Return the run that serves the workload best.

    Among the :func:`contenders`, the one with the highest goodput, where targets were given and it stands out
    by half a percent; else the one with the lowest P99 TBT, ties within 5 % by median TTFT.
    """
    field = contenders(runs)
    top = max((m.goodput.share for m in field.values() if m.goodput is not None), default=math.nan)
    field = {name: m for name, m in field.items() if m.goodput is None or not m.goodput.share < top - TIE}
    smoothest = min((m.tbt_s.p99 for m in field.values() if m.tbt_s.count), default=math.inf)
    smooth = [name for name, m in field.items() if not m.tbt_s.p99 > smoothest * CLOSE]
    return min(smooth, key=lambda name: field[name].ttft_s.p50)


def _output_rate(metrics: Metrics) -> float:
    return metrics.throughput.output_tokens_per_s


def _description(name: str, metrics: Metrics) -> str:
    stalls = metrics.stalls
    pauses = f"{stalls.count:,} generation stalls" if stalls.count else "no generation stall"
    longest = f", the longest {duration(stalls.longest_s)}" if stalls.count else ""
    rate = three_digits(metrics.throughput.requests_per_s)
    return (
        f"{name} serves {rate} requests/s with a P99 TTFT of {duration(metrics.ttft_s.p99)}, "
        f"a P99 TBT of {duration(metrics.tbt_s.p99)} and {pauses}{longest}."
    )


def _winner(runs: Runs) -> str:
    name, kept = winner(runs), keeping_up(runs)
    metrics = runs[name]
    alone = " as the only one" if len(kept) == 1 else ""
    load = f": it keeps up with the arrivals{alone}," if kept else ", though none keeps up with the arrivals:"
    rate, tbt_s, ttft_s = _output_rate(metrics), metrics.tbt_s.p99, metrics.ttft_s.p50
    return (
        f"{name} serves this workload best{load} {three_digits(rate)} output tokens/s with a P99 TBT of "
        f"{duration(tbt_s)} and a median TTFT of {duration(ttft_s)}."
    )


def _behind(runs: Runs) -> str:
    late = [
        f"{name} {duration(metrics.scheduling_delay_s.p50)}"
        for name, metrics in runs.items()
        if metrics.scheduling_delay_s.p50 > KEEPS_UP_S
    ]
    return f"Not keeping up, by their median scheduling delay: {', '.join(late)}." if late else ""


def _extremes(runs: Runs, value: Callable[[Metrics], float], *, low: bool) -> tuple[str, str, float] | None:
    """The best and the worst run in a metric, and by what factor they differ."""
    known = {name: value(metrics) for name, metrics in runs.items() if not math.isnan(value(metrics))}
    if len(known) < 2:
        return None
    best = (min if low else max)(known, key=lambda name: known[name])
    worst = (max if low else min)(known, key=lambda name: known[name])
    small, large = sorted((known[best], known[worst]))
    return best, worst, large / small if small > 0 else math.inf if large > 0 else 1.0


def _times(factor: float) -> str:
    return f"{three_digits(factor)}x" if math.isfinite(factor) else "infinitely many times"


def _goodput(runs: Runs) -> str:
    shares: dict[str, list[str]] = {}
    known = [(name, metrics.goodput) for name, metrics in runs.items() if metrics.goodput is not None]
    for name, goodput in sorted(known, key=lambda item: -item[1].share):
        shares.setdefault(three_digits(100 * goodput.share), []).append(name)
    if len(known) < 2:
        return ""
    parts = [f"{share} % under {', '.join(names)}" for share, names in shares.items()]
    return f"Requests within {known[0][1].rule}: {'; '.join(parts)}."


def _tbt(field: Runs) -> str:
    found = _extremes(field, lambda metrics: metrics.tbt_s.p99, low=True)
    if found is None:
        return ""
    best, worst, factor = found
    if factor < CLOSE:
        return f"P99 TBT hardly differs: {duration(field[best].tbt_s.p99)} at best."
    return (
        f"{best} has the lowest P99 TBT: {duration(field[best].tbt_s.p99)}, {_times(factor)} below {worst} "
        f"({duration(field[worst].tbt_s.p99)}), {_pauses(field[worst])}.{_sizes(best, worst, field)}"
    )


def _pauses(worst: Metrics) -> str:
    stalls = worst.stalls
    if not stalls.count:
        return f"whose iterations hold up to {round(worst.batch.tokens.max):,} tokens"
    how = "stall behind whole prefills" if stalls.whole_share > 0.5 else "share iterations with long prefills"
    return (
        f"whose decodes {how}: {stalls.count:,} generation stalls, the longest {duration(stalls.longest_s)}, "
        f"with {round(stalls.mean_prefill_tokens):,} prompt tokens in each on average"
    )


def _sizes(best: str, worst: str, field: Runs) -> str:
    small, large = field[best].batch.tokens.max, field[worst].batch.tokens.max
    if not large > 1.5 * small:
        return ""
    return (
        f" No iteration of {best} holds more than {round(small):,} tokens; "
        f"those of {worst} hold up to {round(large):,}."
    )


def _ttft(field: Runs) -> str:
    found = _extremes(field, lambda metrics: metrics.ttft_s.p50, low=True)
    if found is None:
        return ""
    best, worst, factor = found
    if factor < CLOSE:
        return f"Median TTFT hardly differs: {duration(field[best].ttft_s.p50)} at best."
    return (
        f"{best} has the lowest median TTFT: {duration(field[best].ttft_s.p50)}, {_times(factor)} below "
        f"{worst} ({duration(field[worst].ttft_s.p50)}){_waiting(field[worst])}."
    )


def _waiting(worst: Metrics) -> str:
    delay_s = worst.scheduling_delay_s.p50
    if not delay_s > 0.5 * worst.ttft_s.p50:
        return ""
    waiting = three_digits(worst.queue_length.mean)
    return f", where a request waits {duration(delay_s)} for its first iteration with {waiting} in the queue"


def _throughput(runs: Runs) -> str:
    found = _extremes(runs, _output_rate, low=False)
    if found is None:
        return ""
    best, worst, factor = found
    fast, slow = runs[best], runs[worst]
    if factor < CLOSE:
        rate = three_digits(fast.throughput.requests_per_s)
        return f"Throughput hardly differs: {rate} requests/s at most."
    most = _output_rate(fast)
    equal = [name for name, m in runs.items() if math.isclose(_output_rate(m), most, rel_tol=TIE)]
    have = f"{', '.join(equal)} {'have' if len(equal) > 1 else 'has'}"
    return (
        f"{have} the highest throughput: {three_digits(most)} output tokens/s, "
        f"{_times(factor)} that of {worst}{_smaller_batches(worst=slow, best=fast)}."
    )


def _smaller_batches(*, worst: Metrics, best: Metrics) -> str:
    if not worst.batch.decodes.mean < best.batch.decodes.mean:
        return ""
    return (
        f", which decodes {three_digits(worst.batch.decodes.mean)} sequences an iteration (against "
        f"{three_digits(best.batch.decodes.mean)}) with {100 * worst.kv_use.mean:.0f} % of the KV blocks taken "
        f"(against {100 * best.kv_use.mean:.0f} %)"
    )


def _wins(runs: Runs) -> str:
    scores = [score for score in scoreboard(runs) if score.rankable]
    wins = {name: sum(index in score.best for score in scores) for index, name in enumerate(runs)}
    ranked = [name for name in sorted(wins, key=lambda name: -wins[name]) if wins[name]]
    if not ranked:
        return "No policy is better than another in any metric here."
    counts = ", ".join(f"{name} {wins[name]}" for name in ranked)
    return f"Best of the row, alone or with others, out of {len(scores)} rows: {counts}."


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _caveats(runs: Runs) -> str:
    preempted = [f"{name} {m.preemptions:,}" for name, m in runs.items() if m.preemptions]
    failed = [
        f"{name} {_count(m.failures.count, 'time')}, {_count(m.failures.requests, 'request')} sent back"
        for name, m in runs.items()
        if m.failures.count
    ]
    unfinished = [f"{name} {m.unfinished:,}" for name, m in runs.items() if m.unfinished]
    parts = [f"Preemptions for lack of KV blocks: {', '.join(preempted)}." if preempted else ""]
    if failed:
        parts.append(f"Replicas failed: {'; '.join(failed)}.")
    if unfinished:
        parts.append(f"Requests left unfinished, and missing from the latencies: {', '.join(unfinished)}.")
    return " ".join(part for part in parts if part)
