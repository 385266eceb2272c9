"""Generation stalls: pauses in the token stream of running sequences while prompts are being processed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import isnan, nan
from statistics import median

import numpy as np
import numpy.typing as npt

from traces.replica_rows import ReplicaRows
from traces.run_columns import RunRecord
from traces.workload import FloatColumn, IntColumn

STALL_FACTOR = 4.0
CLOCK_SLACK_S = 1e-7


@dataclass(frozen=True, kw_only=True, eq=False)
class StallColumns:
    """The generation stalls of a run in the order of its iterations, each column [stalls].

    Attributes
    ----------
    threshold_s
        Gaps longer than this count; NaN for a run without gaps.
    iteration
        Row of the iteration that ended the stall.
    end_s, length_s
        When it ended; the longest gap among the sequences that it held up.
    sequences
        How many sequences it held up.
    prefill_tokens
        Prompt tokens that ran meanwhile on the same replica.
    whole
        Whether an iteration without any decode ran meanwhile (as prefill-first schedulers run them).
    """

    threshold_s: float
    iteration: IntColumn
    end_s: FloatColumn
    length_s: FloatColumn
    sequences: IntColumn
    prefill_tokens: IntColumn
    whole: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.end_s)

    @property
    def cost_s(self) -> FloatColumn:
        """Length times sequences held up, float64 [stalls]."""
        return self.length_s * self.sequences


@dataclass(frozen=True, kw_only=True)
class Stalls:
    """The generation stalls of a run in figures.

    ``count`` stalls held up tokens of running sequences ``gaps`` times; ``total_s`` sums the stalls' lengths,
    ``whole_share`` is the share of them in which an iteration without any decode ran, and
    ``mean_prefill_tokens`` the prompt tokens that ran during a stall.
    """

    threshold_s: float
    count: int
    gaps: int
    longest_s: float
    total_s: float
    whole_share: float
    mean_prefill_tokens: float


def stall_threshold(runs: Iterable[RunRecord]) -> float:
    """Return the gap in seconds from which on it is a stall in each of ``runs``, so that they can be compared.

    It is 4 times the median over the runs of their median TBT; NaN where no run has gaps.
    """
    medians = [run.tbt_s.p50 for run in runs if not isnan(run.tbt_s.p50)]
    return STALL_FACTOR * median(medians) if medians else nan


def find_stalls(run: RunRecord, threshold_s: float | None = None) -> StallColumns:
    """Return the generation stalls of a run.

    A generation stall is a TBT gap longer than ``threshold_s`` (:func:`stall_threshold` of this run alone,
    unless given) during which prompt tokens were processed on the same replica, in the iterations that ended within
    the gap. All such gaps that end with the same iteration are one stall: they have one cause.
    """
    if threshold_s is None:
        threshold_s = stall_threshold([run])
    long = np.flatnonzero(run.iterations.gap_s > threshold_s)
    rows = np.searchsorted(run.iterations.gap_offsets, long, side="right") - 1
    gaps_s, counts = run.iterations.gap_s[long], run.iterations.gap_count[long]
    tokens, whole = _ran_meanwhile(run, rows, gaps_s)
    stalled = tokens > 0
    rows, gaps_s, counts = rows[stalled], gaps_s[stalled], counts[stalled]
    tokens, whole = tokens[stalled], whole[stalled]
    order = np.lexsort((-gaps_s, rows))
    first = np.flatnonzero(np.diff(rows[order], prepend=-1))
    longest = order[first]
    iteration = rows[longest]
    return StallColumns(
        threshold_s=threshold_s,
        iteration=iteration,
        end_s=run.iterations.end_s[iteration],
        length_s=gaps_s[longest],
        sequences=_sums(counts[order], first, np.append(first[1:], len(order))),
        prefill_tokens=tokens[longest],
        whole=whole[longest],
    )


def summarise_stalls(stalls: StallColumns) -> Stalls:
    """Return the figures of the stalls of a run."""
    some = len(stalls) > 0
    return Stalls(
        threshold_s=stalls.threshold_s,
        count=len(stalls),
        gaps=int(stalls.sequences.sum()),
        longest_s=float(stalls.length_s.max(initial=0.0)),
        total_s=float(stalls.length_s.sum()),
        whole_share=float(stalls.whole.mean()) if some else 0.0,
        mean_prefill_tokens=float(stalls.prefill_tokens.mean()) if some else 0.0,
    )


def _ran_meanwhile(run: RunRecord, rows: IntColumn, gaps_s: FloatColumn) -> tuple[IntColumn, npt.NDArray[np.bool_]]:
    """Prompt tokens of the iterations that ended within each gap, and whether one of those had no decode."""
    tokens, whole = np.zeros(len(rows), dtype=np.int64), np.zeros(len(rows), dtype=np.bool_)
    columns = run.iterations
    ends, prompts, decodes = columns.end_s, columns.prefill_tokens, columns.decodes
    begins_s = ends[rows] - gaps_s
    gaps = ReplicaRows(columns.replica[rows], run.meta.replicas)
    for replica in range(run.meta.replicas):
        gap = gaps.of(replica)
        if not len(gap):
            continue
        last = np.searchsorted(run.rows_of(replica), rows[gap]) + 1
        first = np.searchsorted(run.of_replica(ends, replica), begins_s[gap] + CLOCK_SLACK_S, side="right")
        prefill = run.of_replica(prompts, replica)
        tokens[gap] = _sums(prefill, first, last)
        alone = run.of_replica(decodes, replica) == 0
        whole[gap] = _sums((prefill > 0) & alone, first, last) > 0
    return tokens, whole


def _sums(column: npt.NDArray[np.generic], first: IntColumn, last: IntColumn) -> IntColumn:
    until = np.zeros(len(column) + 1, np.int64)
    np.cumsum(column, out=until[1:])
    return np.asarray(until[last] - until[first], dtype=np.int64)
