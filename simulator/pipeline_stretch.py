"""Which stretch of a run shows its pipeline as it usually is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from traces.bubbles import batch_bubbles
from traces.run_record import RunRecord
from traces.workload import FloatColumn

LONG_BATCHES, MOST_BATCHES = 16, 240
TRIES = 20


@dataclass(frozen=True, kw_only=True, eq=False)
class Stretch:
    """A part of the timeline of a replica.

    Attributes
    ----------
    start_s, length_s
        Its beginning, on the clock of the run, and how long it is.
    rows
        The iterations that overlap it, int64 [batches]; the first 240 where there are more.
    bubble_s
        The bubble before each of them on each stage, float64 [batches, stages].
    wait_s
        From when a batch ends on the stage before until it begins on this one, float64 [batches, stages]; NaN for
        the first stage.
    queued
        Whether it found this stage still busy, bool [batches, stages].
    """

    start_s: float
    length_s: float
    rows: npt.NDArray[np.intp]
    bubble_s: FloatColumn
    wait_s: FloatColumn
    queued: npt.NDArray[np.bool_]


def usual_stretch(run: RunRecord, replica: int) -> Stretch:
    """Return a stretch of a replica in which its share of bubbles is nearest to that of the whole run.

    It is as long as 16 of the batches that run at some moment, but holds no more than 240 batches.
    """
    rows, stages = run.rows_of(replica), run.meta.group_of(replica).stages
    times = run.of_replica(run.iterations.stage_time_s, replica)[:, :stages]
    starts = run.of_replica(run.iterations.stage_start_s, replica)[:, :stages]
    ends = starts + times
    length_s = LONG_BATCHES * _long_batch_s(times.max(axis=1)) or 1.0
    for _ in range(TRIES):
        start_s = _usual_start(starts, ends, length_s)
        inside = np.flatnonzero((starts[:, 0] < start_s + length_s) & (ends[:, -1] > start_s))
        if len(inside) <= MOST_BATCHES:
            break
        length_s *= 0.7
    inside = inside[:MOST_BATCHES]
    wait_s, queued = np.full(starts.shape, np.nan), np.zeros(starts.shape, bool)
    wait_s[:, 1:] = starts[:, 1:] - ends[:, :-1]
    queued[1:] = starts[1:] <= ends[:-1]
    return Stretch(
        start_s=start_s,
        length_s=length_s,
        rows=rows[inside],
        bubble_s=batch_bubbles(run, replica)[inside],
        wait_s=wait_s[inside],
        queued=queued[inside],
    )


def _long_batch_s(time_s: FloatColumn) -> float:
    """Return how long the batch takes that runs at some moment: the mean of all, weighted by the time itself."""
    return float(np.square(time_s).sum() / time_s.sum()) if time_s.any() else 0.0


def _usual_start(starts: FloatColumn, ends: FloatColumn, length_s: float) -> float:
    """Return where the stretch begins, of those one after another, whose bubbles are nearest to their mean.

    ``starts`` and ``ends`` of the batches are float64 [batches, stages].
    """
    if not len(starts):
        return 0.0
    edges = np.arange(starts[0, 0], ends[-1, -1], length_s)
    if len(edges) < 3:
        return float(starts[0, 0])
    followed_s = np.maximum(starts[:, 0], np.append(-np.inf, ends[:-1, -1]))
    bubbles = starts.shape[1] * _covered(followed_s, ends[:, -1], edges)
    for start_s, end_s in zip(starts.T, ends.T, strict=True):
        bubbles -= _covered(start_s, end_s, edges)
    return float(edges[np.argmin(np.abs(bubbles - bubbles.mean()))])


def _covered(starts: FloatColumn, ends: FloatColumn, edges: FloatColumn) -> FloatColumn:
    """Return how much of each stretch between two edges lies in the intervals, which follow each other."""
    lengths = ends - starts
    until = np.stack([np.cumsum(lengths) - lengths, np.cumsum(lengths)], axis=1)
    moments = np.stack([starts, ends], axis=1)
    return np.diff(np.interp(edges, moments.ravel(), until.ravel()))
