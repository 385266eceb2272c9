"""Metrics of iterations, computed plainly: all columns in memory, one replica after the other, event by event."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from traces.percentiles import EMPTY, Distribution
from traces.run_record import RunRecord

EVENTS = ARRIVES, BEGINS = range(2)


def rows_of(run: RunRecord, replica: int) -> np.ndarray:
    return np.flatnonzero(run.iterations.replica == replica)


def distribution(values: np.ndarray) -> Distribution:
    if not len(values):
        return EMPTY
    percents = np.percentile(values, (50, 90, 95, 99))
    return Distribution._from(len(values), values.mean(), percents, values.max())


def tbt(run: RunRecord) -> Distribution:
    gap_s, counts = run.iterations.gap_s, run.iterations.gap_count
    if not len(gap_s):
        return EMPTY
    return replace(distribution(np.repeat(gap_s, counts)), mean=float(np.average(gap_s, weights=counts)))


def over_time(times: list[float], values: list[float], end_s: float) -> Distribution:
    """Of a quantity that is values[i] from times[i] to times[i + 1]."""
    durations = np.diff([*times, max(end_s, times[-1])]) if times else np.zeros(0)
    held = durations > 0
    if not held.any():
        return EMPTY
    kept, durations = np.array(values, float)[held], durations[held]
    order = np.argsort(kept, kind="stable")
    until = np.cumsum(durations[order])
    index = np.searchsorted(until, until[-1] * np.array([0.5, 0.9, 0.95, 0.99]), side="left")
    percents = kept[order][np.minimum(index, len(kept) - 1)]
    return Distribution._from(len(kept), np.average(kept, weights=durations), percents, kept.max())


def queue_length(run: RunRecord) -> Distribution:
    rows, requests = run.iterations, run.requests
    events = [(requests.arrival_s[row], ARRIVES, int(requests.replica[row]), 0) for row in range(len(requests))]
    events += [(rows.start_s[row], BEGINS, int(rows.replica[row]), int(rows.waiting[row])) for row in range(len(rows))]
    waiting = dict.fromkeys(range(run.meta.replicas), 0)
    times, values = [], []
    for time, event, replica, count in sorted(events):
        waiting[replica] = waiting[replica] + 1 if event == ARRIVES else count
        times.append(float(time))
        values.append(sum(waiting.values()))
    return over_time(times, values, run.end_s)


def kv_use(run: RunRecord) -> Distribution:
    rows, requests = run.iterations, run.requests
    events = []
    for row in range(len(rows)):
        replica = int(rows.replica[row])
        mine, now = requests.replica == replica, rows.end_s[row]
        events.append((float(rows.start_s[row]), 1, replica, int(rows.blocks_used[row])))
        if (requests.arrival_s[mine] <= now).sum() == (requests.finished_s[mine] <= now).sum():
            events.append((float(now), 0, replica, 0))
    used = dict.fromkeys(range(run.meta.replicas), 0)
    times, values = [], []
    for time, _, replica, blocks in sorted(events):
        used[replica] = blocks
        times.append(time)
        values.append(sum(used.values()) / run.meta.kv_blocks)
    return over_time(times, values, run.end_s)


def mfu(run: RunRecord) -> list[float]:
    """FLOPs over the peak FLOPs of the stages while they are busy, of each iteration."""
    rows = run.iterations
    found = []
    for row in range(len(rows)):
        group = run.meta.group_of(int(rows.replica[row]))
        found.append(rows.flops[row] / (rows.stage_time_s[row].sum() * (group.peak_flops / group.stages)))
    return found


def bubbles(run: RunRecord) -> list[tuple[int, int, float, float]]:
    """Replica, stage, busy and idle seconds."""
    found = []
    for replica in range(run.meta.replicas):
        rows = rows_of(run, replica)
        for stage in range(run.meta.group_of(replica).stages if len(rows) else 0):
            starts, times = run.iterations.stage_start_s[rows, stage], run.iterations.stage_time_s[rows, stage]
            whole_s = float((starts + times).max()) - float(starts.min())
            found.append((replica, stage, float(times.sum()), max(0.0, whole_s - float(times.sum()))))
    return found


def stalls(run: RunRecord, threshold_s: float) -> list[tuple[int, float, int, int]]:
    """Iteration, longest gap, sequences and prompt tokens of each generation stall."""
    rows, found = run.iterations, []
    for row in range(len(rows)):
        gaps = slice(rows.gap_offsets[row], rows.gap_offsets[row + 1])
        long = rows.gap_s[gaps] > threshold_s
        mine = rows_of(run, int(rows.replica[row]))
        mine = mine[mine <= row]

        def tokens(gap_s: float, mine: np.ndarray = mine, end_s: float = float(rows.end_s[row])) -> int:
            return int(rows.prefill_tokens[mine][rows.end_s[mine] > end_s - gap_s + 1e-7].sum())

        held = [
            (gap_s, count)
            for gap_s, count in zip(rows.gap_s[gaps][long], rows.gap_count[gaps][long], strict=True)
            if tokens(gap_s)
        ]
        if held:
            longest = max(gap_s for gap_s, _ in held)
            found.append((row, longest, int(sum(count for _, count in held)), tokens(longest)))
    return found
