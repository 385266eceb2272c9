"""The comparison as one HTML file that needs nothing else: open it in a browser, offline, anywhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from simulator.figure_style import Panel, strokes
from simulator.figures import panels
from simulator.provenance import facts, policy_settings, provenance, sureness
from simulator.report_page import page
from simulator.scoreboard import scoreboard
from simulator.verdicts import verdicts
from traces.files import whole_file
from traces.metrics import Metrics
from traces.run_record import RunRecord

if TYPE_CHECKING:
    from simulator.significance.significance import Significance

Runs = Mapping[str, tuple[RunRecord, Metrics]]
BEST = ' class="best"'
PLOT_CONFIG = {"responsive": True, "displaylogo": False, "modeBarButtons": [["toImage", "resetScale2d"]]}


def write_report(
    path: str | PathLike[str], runs: Runs, *, command: str = "", significance: Significance | None = None
) -> Path:
    """Write the report of runs of one workload; equal runs give equal bytes.

    Parameters
    ----------
    path
        The file.
    runs
        Label -> (run record, its metrics), at least one.
    command
        The command line that makes the runs again, to show on the page.
    significance
        How sure it is which of them is better.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    if not runs:
        raise ValueError("a report needs at least one run")
    with whole_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(page(_title(runs), _body(runs, command, significance)))
    return Path(path)


def _body(runs: Runs, command: str, significance: Significance | None) -> Iterator[str]:
    yield from _what_was_run(runs, command)
    yield from _who_wins(runs)
    if significance is not None:
        yield from _how_sure(significance)
    for panel in panels(runs):
        yield figure_html(panel)


def _title(runs: Runs) -> str:
    first = next(iter(runs.values()))[0].meta
    name = first.workload.get("name", "a workload")
    return f"Which policy serves {name} best?" if len(runs) > 1 else f"{name} under {next(iter(runs))}"


def _what_was_run(runs: Runs, command: str) -> Iterator[str]:
    records = {label: run for label, (run, _) in runs.items()}
    said = {provenance(run.meta) for run in records.values()}
    for each in sorted(said, key=lambda one: (not one.caution, one.text)):
        yield f'<p class="note{" caution" if each.caution else ""}">{escape(each.text)}</p>\n'
    yield from sureness_html(records)
    yield "<dl>\n"
    for name, text in facts(records):
        yield f"<div><dt>{escape(name)}</dt><dd>{escape(text)}</dd></div>\n"
    yield "</dl>\n"
    if command:
        yield f"<pre><code>{escape(command)}</code></pre>\n"


def sureness_html(runs: Mapping[str, RunRecord]) -> Iterator[str]:
    """Yield how sure simulated times are, as notes."""
    for text, caution in sureness(runs):
        yield f'<p class="note{" caution" if caution else ""}">{escape(text)}</p>\n'


def _who_wins(runs: Runs) -> Iterator[str]:
    metrics = {label: measured for label, (_, measured) in runs.items()}
    yield f'<h2>{"Who wins, and why" if len(runs) > 1 else "In short"}</h2>\n<ul class="verdicts">\n'
    for sentence in verdicts(metrics):
        yield f"<li>{escape(sentence)}</li>\n"
    yield "</ul>\n<h2>All metrics</h2>\n"
    if len(runs) > 1:
        yield '<p class="caption">The best of each row is green; values within 0.5 % are equal.</p>\n'
    yield from _table(metrics)
    yield "<details>\n<summary>Settings of the policies</summary>\n"
    yield '<div class="scroll"><table class="wrap">\n'
    for label, text in policy_settings({label: run for label, (run, _) in runs.items()}):
        yield f"<tr><td>{escape(label)}</td><td><code>{escape(text)}</code></td></tr>\n"
    yield "</table></div>\n</details>\n"


def _how_sure(significance: Significance) -> Iterator[str]:
    from simulator.significance.figure import significance_panel
    from simulator.significance.section import significance_html

    yield from significance_html(significance)
    yield figure_html(significance_panel(significance))


def _table(metrics: Mapping[str, Metrics]) -> Iterator[str]:
    lines = strokes(metrics)
    kind = "metrics many" if len(metrics) > 6 else "metrics"
    yield f'<div class="scroll"><table class="{kind}">\n<thead><tr><th></th>'
    for label in metrics:
        yield f'<th style="border-top: 4px solid {lines[label].colour}">{escape(label)}</th>'
    yield "</tr></thead>\n<tbody>\n"
    section = ""
    for score in scoreboard(metrics):
        if score.section != section:
            section = score.section
            yield f'<tr><th colspan="{len(metrics) + 1}">{escape(section)}</th></tr>\n'
        cells = (f"<td{BEST if index in score.best else ''}>{text}</td>" for index, text in enumerate(score.texts))
        yield f"<tr><td>{escape(score.label)}</td>{''.join(cells)}</tr>\n"
    yield "</tbody>\n</table></div>\n"


def figure_html(panel: Panel) -> str:
    """Return a panel as a section of a page that has plotly's script already."""
    return (
        f'<h2 id="{panel.name}">{escape(panel.title)}</h2>\n<p class="caption">{escape(panel.caption)}</p>\n'
        f"{figure_plot(panel)}"
    )


def figure_plot(panel: Panel) -> str:
    """Return a panel's figure alone, for a page that has plotly's script already."""
    plot = panel.figure.to_html(
        full_html=False, include_plotlyjs=False, div_id=f"figure-{panel.name}", config=PLOT_CONFIG
    )
    return f"<figure>{plot}</figure>\n"
