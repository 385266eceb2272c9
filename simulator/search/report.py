"""A search as one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from os import PathLike
from pathlib import Path

from policies.prediction import Interval
from simulator.report import figure_html
from simulator.report_page import page, table_html
from simulator.search.documents import coverage
from simulator.search.figures import panels
from simulator.search.search import Found, Task
from simulator.search.space import Selection
from simulator.search.table import READING, finalists, headline, shared_hardware, sorting
from simulator.validation.policy_verdict import shown, span
from traces.files import whole_file

CSS = "td:first-child { white-space: normal; min-width: 13em; }"
"""Labels of candidates are long: better broken than pushing figures out of sight."""


def write_report(
    path: str | PathLike[str],
    task: Task,
    selection: Selection,
    found: Found,
    sentences: Sequence[str],
    command: str,
) -> None:
    """Write the report of a search; equal searches give equal bytes.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    title = f"Which deployment serves {Path(task.demand.source).name} best?"
    with whole_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(page(title, _body(task, selection, found, sentences, command), css=CSS))


def _body(task: Task, selection: Selection, found: Found, sentences: Sequence[str], command: str) -> Iterator[str]:
    yield f'<p class="note">{escape(headline(task, selection))}</p>\n<ul class="verdicts">\n'
    for sentence in sentences:
        yield f"<li>{escape(sentence)}</li>\n"
    yield f"</ul>\n<pre><code>{escape(command)}</code></pre>\n<h2>The finalists</h2>\n"
    yield f'<p class="caption">{escape(READING[0].upper() + READING[1:])}.</p>\n'
    yield from table_html(*finalists(task, found))
    yield from _predicted(task, found)
    for panel in panels(task, found):
        yield figure_html(panel)
    yield '<h2>What was left out</h2>\n<ul class="verdicts">\n'
    for line in sorting(found, selection):
        yield f"<li>{escape(line)}</li>\n"
    yield "</ul>\n"
    yield from _impossible(selection)


def _predicted(task: Task, found: Found) -> Iterator[str]:
    """Yield what is predicted of the podium, with intervals."""
    yield f"<h2>Predicted at {found.rate_per_s:.3g} requests/s</h2>\n"
    yield '<p class="caption">The value by the cost model as it was fitted, and between what it lies in '
    yield f"{100 * coverage(task.draws):g} % of what that may be wrong by ({task.draws} draws), "
    yield "for these very requests.</p>\n"
    names = list(found.podium[found.winner].metrics)
    rows = [
        (name.replace("MEAN", "mean"), *(_interval(name, each.metrics.get(name)) for each in found.podium.values()))
        for name in names
    ]
    shared = shared_hardware(task)
    heads = (f"{place}. {label.removesuffix(shared)}" for place, label in enumerate(found.podium, start=1))
    yield from table_html(("", *heads), rows)


def _interval(name: str, interval: Interval | None) -> str:
    return "–" if interval is None else f"{shown(name, interval.value)} ({span(name, interval)})"


def _impossible(selection: Selection) -> Iterator[str]:
    if selection.impossible:
        yield f"<details>\n<summary>{len(selection.impossible):,} settings cannot run</summary>\n"
        yield '<div class="scroll"><table class="wrap">\n'
        for label, reason in selection.impossible.items():
            yield f"<tr><td>{escape(label)}</td><td>{escape(reason)}</td></tr>\n"
        yield "</table></div>\n</details>\n"
