"""A replay as one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from os import PathLike

from simulator.provenance import provenance
from simulator.replay.figures import panels
from simulator.replay.replay import Replay
from simulator.replay.seconds import TITLES
from simulator.replay.table import headlines, percent
from simulator.report import figure_html, sureness_html
from simulator.report_page import page, table_html
from simulator.scoreboard import three_digits
from traces.files import whole_file


def write_report(path: str | PathLike[str], replay: Replay) -> None:
    """Write the report of a replay; equal replays give equal bytes.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    with whole_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        title = f"{replay.published.model} on {replay.published.hardware}: real and simulated"
        file.writelines(page(title, _body(replay)))


def _body(replay: Replay) -> Iterator[str]:
    said = provenance(replay.run.meta)
    yield f'<p class="note{" caution" if said.caution else ""}">{escape(said.text)}</p>\n'
    yield from sureness_html({"simulated": replay.run})
    for caution in replay.cautions:
        yield f'<p class="note caution">{escape(caution)}</p>\n'
    yield '<ul class="verdicts">\n'
    for line in headlines(replay):
        yield f"<li>{escape(line)}</li>\n"
    yield "</ul>\n<h2>Errors</h2>\n"
    yield from table_html(("ms", "real", "simulated", "our error", "published simulator's"), _error_rows(replay))
    if replay.audit is not None:
        yield "<h2>Mean deviation, second by second</h2>\n"
        series = [
            (TITLES[one.name], three_digits(one.mean), three_digits(one.deviation)) for one in replay.audit.series
        ]
        yield from table_html(("", "real, mean", "mean deviation"), series)
    for panel in panels(replay):
        yield figure_html(panel)


def _error_rows(replay: Replay) -> list[tuple[str, ...]]:
    return [
        (
            " ".join(row.key),
            f"{1e3 * row.measured_s:,.1f}",
            f"{1e3 * row.simulated_s:,.1f}",
            percent(row.error),
            "–" if row.other_error is None else percent(row.other_error),
        )
        for row in replay.rows
    ]
