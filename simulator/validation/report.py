"""The validation as one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from os import PathLike

from simulator.report import figure_html
from simulator.report_page import page
from simulator.validation.figures import panels
from simulator.validation.judgement import Trial
from simulator.validation.sheet import (
    Sheet,
    case_kind_sheet,
    iteration_sheet,
    kind_sheet,
    metric_sheet,
    order_sheet,
    provenance_rows,
    winner_sheet,
)
from simulator.validation.validation import Finding, Validation
from traces.files import whole_file

TITLE = "Does the simulator predict the engine?"
MORE_CSS = """
:root { --short: #a85600; --short-back: #fff3e0; }
.verdicts li.holds::before { background: var(--win); }
.verdicts li.short::before, .verdicts li.short:first-child::before { background: #d97706; }
.verdicts b { color: var(--soft); font-weight: 600; }
.verdicts li.holds b { color: var(--win); }
.verdicts li.short b { color: var(--short); }
td.short { color: var(--short); background: var(--short-back); font-weight: 700; }
h3 { font-size: 17px; margin: 26px 0 4px; }
.sheet { width: auto; min-width: 60%; }
.sheet th.group { border-left: 1px solid var(--line); text-align: left; }
.sheet thead tr:not(:last-child) th { border-bottom: 0; padding-bottom: 0; }
.sheet td.group { border-left: 1px solid var(--line); }
.sheet tr:last-child td { border-bottom: 2px solid var(--line); }
"""
GROUP = ' class="group"'
STATES = {True: "holds", False: "short", None: "told"}
WORDS = {True: ": holds.", False: ": falls short.", None: "."}


def write_report(path: str | PathLike[str], validation: Validation, trials: Sequence[Trial]) -> None:
    """Write the report of a validation; equal runs give equal bytes.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    with whole_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(page(TITLE, _body(validation, trials), css=MORE_CSS))


def _body(validation: Validation, trials: Sequence[Trial]) -> Iterator[str]:
    yield from verdict_html(validation.verdict)
    yield from sheet_html(winner_sheet(validation))
    scatter, *others = panels(validation, trials)
    yield figure_html(scatter)
    yield from sheet_html(iteration_sheet(validation))
    yield from sheet_html(kind_sheet(validation))
    yield from sheet_html(case_kind_sheet(validation), level=3)
    for panel in others:
        yield figure_html(panel)
    yield "<h2>All metrics</h2>\n"
    yield '<p class="caption">Amber: beyond the limit of the verdict.</p>\n'
    for policy in validation.policies:
        yield from sheet_html(metric_sheet(validation, policy, validation.loads), level=3)
    yield from sheet_html(order_sheet(validation))
    yield from _provenance(validation)


def verdict_html(verdict: Sequence[Finding]) -> Iterator[str]:
    """Yield the sentences of a verdict as a list."""
    yield '<ul class="verdicts">\n'
    for index, finding in enumerate(verdict):
        name = f"<b>{escape(_name(finding))}</b> " if index else ""
        yield f'<li class="{STATES[finding.holds]}">{name}{escape(finding.text)}</li>\n'
    yield "</ul>\n"


def _name(finding: Finding) -> str:
    return f"{finding.subject[0].upper()}{finding.subject[1:]}{WORDS[finding.holds]}"


def sheet_html(sheet: Sheet, *, level: int = 2) -> Iterator[str]:
    """Yield a table under a heading."""
    yield f"<h{level}>{escape(sheet.title)}</h{level}>\n"
    if sheet.note:
        yield f'<p class="caption">{escape(sheet.note)}</p>\n'
    yield '<div class="scroll"><table class="sheet">\n<thead>'
    yield from _head(sheet)
    yield "</thead>\n<tbody>\n"
    begins = {index for index, name in enumerate(sheet.columns) if "\n" in name and not name.startswith("\n")}
    for row, cells in enumerate(sheet.rows):
        marked = (_cell(text, (row, index) in sheet.short, index in begins) for index, text in enumerate(cells))
        yield f"<tr>{''.join(marked)}</tr>\n"
    yield "</tbody>\n</table></div>\n"


def _head(sheet: Sheet) -> Iterator[str]:
    """One line of column names, and above it one of the groups' names where there are groups."""
    if any("\n" in name for name in sheet.columns):
        yield f"<tr>{''.join(_groups(sheet.columns))}</tr>"
    yield "<tr>"
    for name in sheet.columns:
        group, _, own = name.rpartition("\n")
        yield f"<th{GROUP if group else ''}>{escape(own)}</th>"
    yield "</tr>"


def _groups(columns: Sequence[str]) -> Iterator[str]:
    index = 0
    while index < len(columns):
        group, newline, _ = columns[index].rpartition("\n")
        span = 1
        while newline and index + span < len(columns) and columns[index + span].startswith("\n"):
            span += 1
        yield f'<th{GROUP} colspan="{span}">{escape(group)}</th>' if newline else "<th></th>"
        index += span


def _cell(text: str, short: bool, begins: bool) -> str:
    names = " ".join(name for name, given in (("short", short), ("group", begins)) if given)
    return f'<td class="{names}">{escape(text)}</td>' if names else f"<td>{escape(text)}</td>"


def _provenance(validation: Validation) -> Iterator[str]:
    settings = validation.provenance["policies"]
    yield from provenance_html(provenance_rows(validation), settings, validation.provenance["command"])


def provenance_html(
    rows: Sequence[tuple[str, str]], policies: Mapping[str, Mapping[str, object]], command: str
) -> Iterator[str]:
    """Yield what was run, the settings of the policies, and the command that makes it again."""
    yield "<h2>What was run</h2>\n<dl>\n"
    for name, text in rows:
        yield f"<div><dt>{escape(name)}</dt><dd>{escape(text)}</dd></div>\n"
    yield '</dl>\n<div class="scroll"><table class="wrap">\n'
    for label, settings in policies.items():
        text = ", ".join(f"{key} = {value}" for key, value in settings.items())
        yield f"<tr><td>{escape(label)}</td><td><code>{escape(text)}</code></td></tr>\n"
    yield "</table></div>\n"
    if command:
        yield f"<pre><code>{escape(command)}</code></pre>\n"
