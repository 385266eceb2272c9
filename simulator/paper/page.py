"""The page of the papers: first what is missed, then the headline figures, then each experiment."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from itertools import groupby

from simulator.paper.blocks import Block, Bullets, Code, Grid, Heading, Line, Paragraph, Picture, Words, line
from simulator.paper.cells import CHANGE_HEAD, FINDING_HEAD, change_cells, finding_cells, seconds
from simulator.paper.experiment import Change, Finding, Table
from simulator.paper.result import Placed, Result, headlines, misses, placed, reasons, tally

TITLE = "The papers, reproduced"
READING = (
    "Every published figure stands beside ours, with the deviation of ours as a share of it. A judged figure is within "
    "or missed: its limit says how far ours may lie from it. The figures that the papers are known for are bold. No "
    "constant is tuned to any of them. Where a figure is missed, one thing at a time is changed to find out why."
)
LIBRARIES = ("charioteer", "numpy", "simpy", "plotly")


def blocks(results: Sequence[Result], command: str, missing: str = "") -> Iterator[Block]:
    """Yield the page of experiments.

    Parameters
    ----------
    results
        At least one.
    command
        What runs them again.
    missing
        Why figures are missing, "" where none are.
    """
    yield Paragraph(line("Generated, with its figures, by"))
    yield Code(command)
    yield Paragraph(line(READING))
    if missing:
        yield Paragraph(line(Words(missing, strong=True)))
    yield from _missed(results)
    yield from _headlines(results)
    yield from _contents(results)
    for paper, group in groupby(results, key=lambda result: result.experiment.paper):
        yield Heading(2, paper, _anchor(paper))
        for result in group:
            yield from _section(result)
    yield Paragraph(line(f"Made with {', '.join(_versions())}."), soft=True)


def _versions() -> Iterator[str]:
    yield f"Python {sys.version_info.major}.{sys.version_info.minor}"
    for name in LIBRARIES:
        yield f"{name} {version(name)}"


def _missed(results: Sequence[Result]) -> Iterator[Block]:
    yield Heading(2, "What is missed", "missed")
    yield Paragraph(line(Words(tally(results), strong=True)))
    missed = misses(results)
    if not missed:
        return
    yield _findings(missed, whole_page=True)
    yield from _reasons(missed, whole_page=True)
    changes = [(finding, change) for result, finding in missed for change in result.changes(finding)]
    yield from _changes("Where that comes from: the same figures with one thing changed.", changes)


def _headlines(results: Sequence[Result]) -> Iterator[Block]:
    if known := headlines(results):
        yield Heading(2, "The headline figures", "headlines")
        yield _findings(known, whole_page=True)


def _contents(results: Sequence[Result]) -> Iterator[Block]:
    yield Heading(2, "The experiments", "experiments")
    yield Grid(
        ("experiment", "what it shows", "takes about"),
        tuple(
            (_link(result), line(result.experiment.shows), line(seconds(result.experiment.about_s)))
            for result in results
        ),
    )


def _section(result: Result) -> Iterator[Block]:
    experiment, found = result.experiment, result.found
    yield Heading(3, experiment.title, experiment.name)
    yield Paragraph(line(experiment.shows))
    own = list(placed([result]))
    if own:
        yield _findings(own)
        yield from _reasons(own)
    by_name = {finding.name: finding for finding in found.findings}
    yield from _changes("With one thing changed:", [(by_name[each.finding], each) for each in found.changes])
    for panel in found.panels:
        yield Picture(panel)
    for table in found.tables:
        yield from _table(table)
    yield from _list("What to know", found.notes)
    yield from _list("What the figures stand on", found.stands_on)
    yield Code(f"python -m simulator paper {experiment.name}")


def _findings(entries: Iterable[Placed], *, whole_page: bool = False) -> Grid:
    """Return findings as a table; on the whole page each leads to its experiment, within that it names its source."""
    where = "experiment" if whole_page else "printed in"
    rows = tuple(
        (
            line(Words(finding.name, strong=finding.headline)),
            _link(result) if whole_page else line(finding.source),
            *_marked(finding),
        )
        for result, finding in entries
    )
    return Grid((FINDING_HEAD[0], where, *FINDING_HEAD[1:]), rows)


def _marked(finding: Finding) -> Iterator[Line]:
    *figures, verdict = finding_cells(finding)
    yield from (line(text) for text in figures)
    yield line(Words(verdict, strong=finding.missed))


def _reasons(entries: Iterable[Placed], *, whole_page: bool = False) -> Iterator[Block]:
    items = []
    for (experiment, why), names in reasons(entries).items():
        of = line(" in ", _anchored(experiment)) if whole_page else ()
        items.append(line(Words(", ".join(names), strong=True), *of, f": {why}"))
    if items:
        yield Bullets(tuple(items))


def _changes(title: str, changes: Sequence[tuple[Finding, Change]]) -> Iterator[Block]:
    if changes:
        yield Paragraph(line(title))
        yield Grid(CHANGE_HEAD, tuple(_row(change_cells(*each)) for each in changes))


def _table(table: Table) -> Iterator[Block]:
    yield Paragraph(line(Words(table.title, strong=True)))
    yield Grid(table.head, tuple(_row(row) for row in table.rows))


def _list(title: str, texts: Sequence[str]) -> Iterator[Block]:
    if texts:
        yield Paragraph(line(f"{title}:"))
        yield Bullets(tuple(line(text) for text in texts))


def _row(texts: Iterable[str]) -> tuple[Line, ...]:
    return tuple(line(text) for text in texts)


def _link(result: Result) -> Line:
    return line(_anchored(result.experiment.name))


def _anchored(experiment: str) -> Words:
    return Words(experiment, link=experiment)


def _anchor(text: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in text.lower()).strip("-")
