"""The figure of single iterations: a short window of every run, around the worst stall."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from simulator.figure_style import KIND_COLOURS, KIND_NAMES, STALL_COLOUR, Panel, shown, style
from simulator.scoreboard import duration
from traces.run_record import RunRecord
from traces.stalls import find_stalls, stall_threshold
from traces.utilisation import KINDS, iteration_kinds

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Runs = Mapping[str, RunRecord]
MOST_BARS = 160


@dataclass(frozen=True, kw_only=True)
class Window:
    """The part of the runs to show, in seconds since the first arrival, and what makes it worth showing.

    ``label`` is the run that has the worst stall, from ``stall_s[0]`` to ``stall_s[1]`` on ``replica``,
    holding up ``sequences``; ``stall_s`` is None where no run has one.
    """

    start_s: float
    end_s: float
    label: str
    replica: int
    stall_s: tuple[float, float] | None
    sequences: int


def worst_window(runs: Runs) -> Window:
    """Return a window around the stall that cost the most, with at most 160 iterations of any run.

    What a stall costs is its length times the sequences that it held up. Without any stall it is around the middle one
    of the iterations of the replica with the most of them, in the longest run.
    """
    threshold_s = stall_threshold(runs.values())
    stalls = {label: find_stalls(run, threshold_s) for label, run in runs.items()}
    label = max(runs, key=lambda name: float(stalls[name].cost_s.max(initial=0.0)))
    found, run = stalls[label], runs[label]
    if not len(found):
        return _usual_window(runs)
    worst = int(np.argmax(found.cost_s))
    end_s = float(found.end_s[worst]) - run.start_s
    length_s = float(found.length_s[worst])
    replica = int(run.iterations.replica[found.iteration[worst]])
    first_s, last_s = _shrunk(runs, end_s - length_s, end_s, replica, max(length_s, 0.2))
    return Window(
        start_s=first_s,
        end_s=last_s,
        label=label,
        replica=replica,
        stall_s=(end_s - length_s, end_s),
        sequences=int(found.sequences[worst]),
    )


def _usual_window(runs: Runs) -> Window:
    label = max(runs, key=lambda name: runs[name].end_s - runs[name].start_s)
    run = runs[label]
    replica = int(np.argmax(np.bincount(run.iterations.replica, minlength=1)))
    ends_s = run.of_replica(run.iterations.end_s, replica)
    middle_s = float(ends_s[len(ends_s) // 2]) - run.start_s if len(ends_s) else 0.0
    start_s, end_s = _shrunk(runs, middle_s, middle_s, replica, 2.0)
    return Window(start_s=start_s, end_s=end_s, label=label, replica=replica, stall_s=None, sequences=0)


def _shrunk(runs: Runs, start_s: float, end_s: float, replica: int, margin_s: float) -> tuple[float, float]:
    """Widen a window by as much of the margin as keeps every run within the number of bars."""
    for _ in range(20):
        rows = [_rows(run, replica, start_s - margin_s, end_s + margin_s) for run in runs.values()]
        if max(len(of_one) for of_one in rows) <= MOST_BARS:
            break
        margin_s *= 0.7
    return max(0.0, start_s - margin_s), end_s + margin_s


def _replica(run: RunRecord, replica: int) -> int:
    """The replica to show of a run that may have fewer than the one with the stall."""
    return min(replica, run.meta.replicas - 1)


def _rows(run: RunRecord, replica: int, start_s: float, end_s: float) -> npt.NDArray[np.intp]:
    rows = run.rows_of(_replica(run, replica))
    columns = run.iterations
    inside = (columns.end_s[rows] - run.start_s > start_s) & (columns.start_s[rows] - run.start_s < end_s)
    return rows[inside]


def timeline_panel(runs: Runs) -> Panel:
    """Return the iterations of all runs in the same short window, one row a run and pipeline stage."""
    from plotly.graph_objects import Figure

    window = worst_window(runs)
    figure = Figure()
    for kind, name in enumerate(KINDS):
        _add_bars(figure, runs, window, kind, name)
    rows = [row for label, run in runs.items() for row in _row_names(label, run, window.replica)]
    figure.update_yaxes(categoryorder="array", categoryarray=rows[::-1], range=[-0.6, len(rows) - 0.4])
    figure.update_xaxes(title="time since the first arrival (s)", range=[window.start_s, window.end_s])
    style(figure, height=150 + 56 * len(rows), barmode="overlay", bargap=0.42)
    _mark_stall(figure, window, rows)
    return Panel(name="timeline", title="Iterations, one by one", caption=_caption(window, runs), figure=figure)


def _row_names(label: str, run: RunRecord, replica: int) -> list[str]:
    stages = run.meta.group_of(_replica(run, replica)).stages
    return [shown(label) + (f" · stage {stage}" if stages > 1 else "") for stage in range(stages)]


def _add_bars(figure: Figure, runs: Runs, window: Window, kind: int, name: str) -> None:
    names: list[str] = []
    starts, times, details = [], [], []
    for label, run in runs.items():
        rows = _rows(run, window.replica, window.start_s, window.end_s)
        rows = rows[iteration_kinds(run.iterations)[rows] == kind]
        held = np.stack([run.iterations.prefill_tokens[rows], run.iterations.decodes[rows]], axis=1)
        for stage, row_name in enumerate(_row_names(label, run, window.replica)):
            names += [row_name] * len(rows)
            starts.append(run.iterations.stage_start_s[rows, stage] - run.start_s)
            times.append(run.iterations.stage_time_s[rows, stage])
            details.append(held)
    figure.add_bar(
        orientation="h",
        y=names,
        base=np.concatenate(starts),
        x=np.concatenate(times),
        customdata=np.concatenate(details).astype(np.int32),
        name=KIND_NAMES[name],
        marker={"color": KIND_COLOURS[name], "line": {"color": "white", "width": 0.6}},
        hovertemplate=(
            "%{customdata[0]} prompt tokens, %{customdata[1]} decodes<br>"
            "%{x:.4g} s from %{base:.6g} s<extra>%{y}</extra>"
        ),
    )


def _mark_stall(figure: Figure, window: Window, rows: list[str]) -> None:
    if window.stall_s is None:
        return
    mine = [
        len(rows) - 1 - index
        for index, name in enumerate(rows)
        if name == shown(window.label) or name.startswith(shown(window.label) + " · ")
    ]
    start_s, end_s = window.stall_s
    line = {"color": STALL_COLOUR, "width": 2}
    figure.add_shape(
        type="rect", x0=start_s, x1=end_s, y0=min(mine) - 0.36, y1=max(mine) + 0.36, line=line, layer="above"
    )
    figure.add_annotation(
        x=(start_s + end_s) / 2,
        y=max(mine) + 0.37,
        yanchor="bottom",
        text=_waiting(window.sequences, duration(end_s - start_s)),
        font={"color": STALL_COLOUR, "size": 12},
        bgcolor="white",
        borderpad=1,
        showarrow=False,
    )


def _waiting(sequences: int, longest: str) -> str:
    return f"1 sequence waits {longest}" if sequences == 1 else f"{sequences:,} sequences wait up to {longest}"


def _caption(window: Window, runs: Runs) -> str:
    replica = f" of replica {window.replica}" if any(run.meta.replicas > 1 for run in runs.values()) else ""
    what = (
        f"Every iteration{replica} of all policies in the same {duration(window.end_s - window.start_s)} of "
        "the workload; hover over one to see what it held."
    )
    staged = any(run.meta.stages > 1 for run in runs.values())
    bubbles = " A gap in a row is a bubble, or idle time where all rows have it." if staged else " A gap is idle time."
    if window.stall_s is None:
        return what + bubbles + " No run has a generation stall; this is amid the iterations of the longest run."
    stall = f" The frame is the generation stall that cost most, sequences times time, under {window.label}."
    return what + stall + bubbles
