"""A search as one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from os import PathLike

from simulator.report import POLICY, figure_html
from simulator.report_style import CSS
from simulator.search.figures import panels
from simulator.search.search import Found, Task
from simulator.search.space import Selection
from simulator.search.table import finalists, headline, sorting
from traces.files import whole_file


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
    with whole_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(_page(task, selection, found, sentences, command))


def _page(task: Task, selection: Selection, found: Found, sentences: Sequence[str], command: str) -> Iterator[str]:
    from plotly.offline import get_plotlyjs

    title = f"Which deployment serves {task.demand.source} best?"
    yield '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    yield f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    yield f"<title>{escape(title)}</title>\n<style>{CSS}</style>\n<script>{get_plotlyjs()}</script>\n"
    yield f"</head>\n<body>\n<main>\n<h1>{escape(title)}</h1>\n"
    yield f'<p class="note">{escape(headline(task, selection))}</p>\n<ul class="verdicts">\n'
    for sentence in sentences:
        yield f"<li>{escape(sentence)}</li>\n"
    yield f"</ul>\n<pre><code>{escape(command)}</code></pre>\n<h2>The finalists</h2>\n"
    yield from _table(*finalists(task, found))
    yield from _predicted(found)
    for panel in panels(task, found):
        yield figure_html(panel)
    yield '<h2>What was left out</h2>\n<ul class="verdicts">\n'
    for line in sorting(found, selection):
        yield f"<li>{escape(line)}</li>\n"
    yield "</ul>\n"
    yield from _impossible(selection)
    yield "</main>\n</body>\n</html>\n"


def _predicted(found: Found) -> Iterator[str]:
    """Yield what is predicted of the podium, with intervals."""
    yield f"<h2>Predicted at {found.rate_per_s:.3g} requests/s</h2>\n"
    yield '<p class="caption">The value by the cost model as it was fitted, and between what it lies in 90 % of what '
    yield "that may be wrong by, for these very requests.</p>\n"
    names = [name for name in next(iter(found.predictions.values())).metrics if not name.endswith(("MAX", "P95"))]
    rows = []
    for name in names:
        cells = (
            _interval(name, each.metrics[name].as_dict()) if name in each.metrics else "–"
            for each in found.predictions.values()
        )
        rows.append((name, *cells))
    yield from _table(("", *found.predictions), rows)


def _interval(name: str, interval: dict[str, float]) -> str:
    time = name.startswith(("TTFT", "TBT", "TPOT", "End-to-end", "Scheduling"))
    scale, unit = (1e3, " ms") if time else (1.0, "")
    value, low, high = (f"{scale * interval[key]:.4g}" for key in ("value", "low", "high"))
    return f"{value}{unit} ({low} to {high})"


def _impossible(selection: Selection) -> Iterator[str]:
    if selection.impossible:
        yield f"<details>\n<summary>{len(selection.impossible):,} settings cannot run</summary>\n"
        yield '<div class="scroll"><table class="wrap">\n'
        for label, reason in selection.impossible.items():
            yield f"<tr><td>{escape(label)}</td><td>{escape(reason)}</td></tr>\n"
        yield "</table></div>\n</details>\n"


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    yield '<div class="scroll"><table>\n<thead><tr>'
    yield "".join(f"<th>{escape(name)}</th>" for name in head)
    yield "</tr></thead>\n<tbody>\n"
    for row in rows:
        yield "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>\n"
    yield "</tbody>\n</table></div>\n"
