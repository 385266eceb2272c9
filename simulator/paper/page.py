"""The page of the papers: how much is reproduced, what is missed, the headline figures, then each experiment."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from importlib.metadata import version
from itertools import groupby

from simulator.paper.blocks import Block, Bullets, Code, Grid, Heading, Line, Paragraph, Picture, Words, line
from simulator.paper.cells import FINDING_HEAD, change_rows, finding_cells, seconds, verdict
from simulator.paper.experiment import Finding, Table
from simulator.paper.result import Placed, Result, headlines_within, misses, tally

TITLE = "The papers, reproduced"
READING = (
    "Every published figure stands beside ours, with the deviation of ours as a share of it: within its limit, or "
    "missed. Where a paper says something without a number, ours stands beside 1x and is not judged. The figures that "
    "the papers are known for are bold. No prediction is fitted to any of them; where one is missed, one thing at a "
    "time is changed to find out why, and its experiment tells what came of it."
)
UNKNOWN = "not explained"
SHARED = "Of several of these experiments:"
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
    yield Paragraph(line(Words(tally(results), strong=True)))
    yield Paragraph(line(READING))
    if missing:
        yield Paragraph(line(Words(missing, strong=True)))
    yield from _missed(results)
    yield from _reproduced(results)
    yield from _contents(results)
    for paper, group in groupby(results, key=lambda result: result.experiment.paper):
        yield from _chapter(paper, list(group))
    yield Paragraph(line(f"Generated, with its figures, by {', '.join(_versions())}:"), soft=True)
    yield Code(command)


def _versions() -> Iterator[str]:
    yield f"Python {sys.version_info.major}.{sys.version_info.minor}"
    for name in LIBRARIES:
        yield f"{name} {version(name)}"


def _missed(results: Sequence[Result]) -> Iterator[Block]:
    yield Heading(2, "What is missed", "missed")
    missed = misses(results)
    if not missed:
        yield Paragraph(line("Nothing."))
        return
    head = ("figure", "experiment", *FINDING_HEAD[1:-1], "why")
    yield Grid(head, tuple((*_summary(each), line(each[1].cause or UNKNOWN)) for each in missed))


def _reproduced(results: Sequence[Result]) -> Iterator[Block]:
    if known := headlines_within(results):
        yield Heading(2, "Headline figures within their limits", "headlines")
        yield Grid(("figure", "experiment", *FINDING_HEAD[1:-1]), tuple(tuple(_summary(each)) for each in known))


def _summary(place: Placed) -> Iterator[Line]:
    result, finding = place
    yield from (_name(finding), _link(result), *_figures(finding))


def _contents(results: Sequence[Result]) -> Iterator[Block]:
    yield Heading(2, "The experiments", "experiments")
    yield Grid(
        ("experiment", "what it shows", "takes about"),
        tuple(
            (_link(result), line(result.experiment.shows), line(seconds(result.experiment.about_s)))
            for result in results
        ),
    )


def _chapter(paper: str, results: Sequence[Result]) -> Iterator[Block]:
    """Yield the experiments of a paper, after what several of them have in common."""
    yield Heading(2, paper, _anchor(paper))
    shared = _shared(results)
    if shared:
        yield Paragraph(line(SHARED))
        yield Bullets(tuple(line(f"{text} (", *_listed(of), ")") for text, of in shared.items()))
    for result in results:
        yield from _section(result, shared)


def _shared(results: Sequence[Result]) -> dict[str, list[Result]]:
    """Return the notes, and what figures stand on, of which several results speak, and these results."""
    told: dict[str, list[Result]] = {}
    for result in results:
        for text in (*result.found.notes, *result.found.stands_on):
            told.setdefault(text, []).append(result)
    return {text: of for text, of in told.items() if len(of) > 1}


def _listed(results: Sequence[Result]) -> Iterator[str | Words]:
    for place, result in enumerate(results):
        yield from (", " * (place > 0), _anchored(result))


def _section(result: Result, shared: Collection[str]) -> Iterator[Block]:
    experiment, found = result.experiment, result.found
    yield Heading(3, experiment.title, experiment.name)
    yield Paragraph(line(experiment.shows))
    if found.findings:
        yield _findings(found.findings)
    if reasons := result.reasons:
        yield Bullets(tuple(line(Words("; ".join(names), strong=True), f": {why}") for why, names in reasons.items()))
    if found.changes:
        head, rows = change_rows(found)
        yield Paragraph(line("With one thing changed:"))
        yield Grid(head, tuple(_row(row) for row in rows))
    for panel in found.panels:
        yield Picture(panel)
    for table in found.tables:
        yield from _table(table)
    yield from _list("What to know", [text for text in found.notes if text not in shared])
    yield from _list("What the figures stand on", [text for text in found.stands_on if text not in shared])
    yield Code(f"python -m simulator paper {experiment.name}")


def _findings(findings: Sequence[Finding]) -> Grid:
    rows = tuple((_name(each), line(each.source), *_figures(each), _verdict(each)) for each in findings)
    return Grid((FINDING_HEAD[0], "printed in", *FINDING_HEAD[1:]), rows)


def _name(finding: Finding) -> Line:
    return line(Words(finding.name, strong=finding.headline))


def _figures(finding: Finding) -> Iterator[Line]:
    return (line(text) for text in finding_cells(finding)[:-1])


def _verdict(finding: Finding) -> Line:
    return line(Words(verdict(finding), strong=finding.missed))


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
    return line(_anchored(result))


def _anchored(result: Result) -> Words:
    return Words(result.experiment.name, link=result.experiment.name)


def _anchor(text: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in text.lower()).strip("-")
