"""How well a run used its hardware: batch composition, MFU, bubbles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan

import numpy as np

from traces.downtime import Outage, downtime_s, outages
from traces.percentiles import EMPTY, Distribution
from traces.run_columns import IterationColumns, RunRecord
from traces.workload import FloatColumn, IntColumn

KINDS = ("prefill", "mixed", "decode")
PREFILL, MIXED, DECODE = range(3)


@dataclass(frozen=True, kw_only=True)
class BatchComposition:
    """What the iterations held, and the shares of stage time that each kind of batch took.

    ``tokens``, ``prefill_tokens`` and ``decodes`` are distributions over iterations. The shares add up to 1: busy time
    of all stages over the makespan, time in which their replica was down, and the rest, ``idle_share``.
    """

    iterations: int
    tokens: Distribution
    prefill_tokens: Distribution
    decodes: Distribution
    prefill_share: float
    mixed_share: float
    decode_share: float
    idle_share: float
    down_share: float


@dataclass(frozen=True, kw_only=True)
class ModelFlopsUtilisation:
    """Model FLOPs over the peak FLOPs of the hardware; NaN where the peak is unknown.

    ``wall`` counts all stages for the whole makespan but for the time that their replica was down, ``busy`` only
    while they are busy, ``iteration`` is the distribution of the latter over iterations.
    """

    wall: float
    busy: float
    iteration: Distribution


@dataclass(frozen=True, kw_only=True)
class StageBubbles:
    """The idle time of one pipeline stage between its first and its last work.

    Time in which the replica was down is not idle. ``in_flight_s`` is the part of ``idle_s`` in which a batch was in
    flight on the replica's other stages or between them; the rest had nothing to run. ``idle_share`` is ``idle_s``
    over busy + idle.
    """

    replica: int
    stage: int
    busy_s: float
    idle_s: float
    idle_share: float
    in_flight_s: float


def iteration_kinds(iterations: IterationColumns) -> IntColumn:
    """Return what each iteration held: index into ``KINDS``, int64 [iterations]."""
    prefill, decode = iterations.prefill_tokens > 0, iterations.decodes > 0
    return np.where(prefill & decode, MIXED, np.where(prefill, PREFILL, DECODE))


def batch_composition(run: RunRecord, makespan_s: float) -> BatchComposition:
    """Return what the iterations of a run held."""
    rows = run.iterations
    busy = np.bincount(iteration_kinds(rows), weights=rows.busy_s, minlength=len(KINDS))
    stages = run.meta.of_each("stages")
    whole_s, down_s = makespan_s * float(stages.sum()), float((stages * downtime_s(run)).sum())
    shares = np.append(busy, down_s) / whole_s if whole_s > 0 else np.zeros(len(KINDS) + 1)
    return BatchComposition(
        iterations=len(rows),
        tokens=Distribution.of(rows.prefill_tokens + rows.decodes),
        prefill_tokens=Distribution.of(rows.prefill_tokens),
        decodes=Distribution.of(rows.decodes),
        prefill_share=float(shares[PREFILL]),
        mixed_share=float(shares[MIXED]),
        decode_share=float(shares[DECODE]),
        idle_share=max(0.0, 1.0 - float(shares.sum())),
        down_share=float(shares[-1]),
    )


def model_flops_utilisation(run: RunRecord, makespan_s: float) -> ModelFlopsUtilisation:
    """Return the MFU of a run; each stage has its part of its replica's peak."""
    peaks, rows = run.meta.of_each("peak_flops"), run.iterations
    if np.isnan(peaks).any() or not len(rows):
        return ModelFlopsUtilisation(wall=nan, busy=nan, iteration=EMPTY)
    capacity = rows.busy_s * (peaks / run.meta.of_each("stages"))[rows.replica]
    timed = capacity > 0
    wall = float(((makespan_s - downtime_s(run)) * peaks).sum())
    return ModelFlopsUtilisation(
        wall=float(rows.flops.sum() / wall) if wall > 0 else nan,
        busy=float(rows.flops.sum() / capacity.sum()) if timed.any() else nan,
        iteration=Distribution.of(rows.flops[timed] / capacity[timed]),
    )


def stage_bubbles(run: RunRecord) -> tuple[StageBubbles, ...]:
    """Return the bubbles of every stage of every replica that ran anything."""
    rows, down, found = run.iterations, outages(run), list[StageBubbles]()
    stage_start_s, stage_time_s, start_s, end_s = rows.stage_start_s, rows.stage_time_s, rows.start_s, rows.end_s
    for replica, stages in enumerate(run.meta.of_each("stages").astype(int).tolist()):
        starts, times = run.of_replica(stage_start_s, replica), run.of_replica(stage_time_s, replica)
        if not len(starts):
            continue
        flights = run.of_replica(start_s, replica), run.of_replica(end_s, replica)
        for stage in range(stages):
            work = starts[:, stage], times[:, stage]
            found.append(_bubbles((replica, stage), work, flights if stages > 1 else None, down[replica]))
    return tuple(found)


def _bubbles(
    place: tuple[int, int],
    work: tuple[FloatColumn, FloatColumn],
    flights: tuple[FloatColumn, FloatColumn] | None,
    down: Sequence[Outage],
) -> StageBubbles:
    """Bubbles of a stage from when it began each batch and for how long it was busy.

    ``flights`` are the starts and ends of the batches on the whole pipeline, None where the stage is all of it.
    """
    starts, times = work
    begin_s, end_s = float(starts.min()), float((starts + times).max())
    busy_s = float(times.sum())
    down_s = sum(max(0.0, min(outage.end_s, end_s) - max(outage.start_s, begin_s)) for outage in down)
    idle_s = max(0.0, end_s - begin_s - busy_s - down_s)
    nothing_s = idle_s + down_s if flights is None else _nothing_in_flight(*flights, begin_s=begin_s, end_s=end_s)
    return StageBubbles(
        replica=place[0],
        stage=place[1],
        busy_s=busy_s,
        idle_s=idle_s,
        idle_share=idle_s / (busy_s + idle_s) if busy_s + idle_s > 0 else 0.0,
        in_flight_s=max(0.0, idle_s - (nothing_s - down_s)),
    )


def _nothing_in_flight(starts: FloatColumn, ends: FloatColumn, *, begin_s: float, end_s: float) -> float:
    """Seconds between two moments in which no iteration is between its start and its end."""
    order = np.argsort(starts, kind="stable")
    until = np.maximum.accumulate(ends[order])
    left, right = np.maximum(until[:-1], begin_s), np.minimum(starts[order][1:], end_s)
    return float(np.maximum(right - left, 0.0).sum())
