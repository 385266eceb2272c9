"""An experiment of a paper, and what it finds: published figures beside ours, figures, evidence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from simulator.trials.plan import Plan

if TYPE_CHECKING:
    from simulator.figure_style import Panel

SARATHI = "SARATHI (arXiv 2308.16369)"
SARATHI_SERVE = "Sarathi-Serve (arXiv 2403.02310)"
BEYOND = "Beyond the papers"
SAME = 0.15
"""How far a figure may lie from the published one and still count as reproduced, as a share of it."""
SAME_CAPACITY = 0.30
"""The same of a ratio of capacities, which hangs on a whole engine and on a dataset that is not public."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A published figure beside ours.

    Attributes
    ----------
    name
        What it is, unique within its experiment: "prefill of 1,024 tokens".
    published
        As the paper prints it.
    ours
        As it comes out here, in the same unit.
    unit
        "ms", "x" for ratios, "sequences", "requests/s".
    source
        Where it is printed: "table 2".
    limit
        How far ours may lie from it, as a share of it; None: it is printed beside ours and not judged (the paper
        gives a bound or a rough figure).
    headline
        Whether it is one of the claims that the paper is known for.
    cause
        Why it deviates in a few words, for the list of what is missed; "" where it does not.
    reason
        The same in sentences, told from ``changes``; findings that share one are told together.
    """

    name: str
    published: float
    ours: float
    unit: str
    source: str
    limit: float | None = SAME
    headline: bool = False
    cause: str = ""
    reason: str = ""

    @property
    def deviation(self) -> float:
        """Ours over the published figure, less one."""
        return self.ours / self.published - 1

    @property
    def missed(self) -> bool:
        """Whether ours lies further away than may be."""
        return self.limit is not None and not abs(self.deviation) <= self.limit


@dataclass(frozen=True, kw_only=True)
class Change:
    """A finding once more, with one thing changed and all else as it was: what its deviation comes from.

    Attributes
    ----------
    finding
        Name of the finding.
    what
        What was changed, and whence the new value: "attention as slow as table 2 has it".
    ours
        The figure then.
    """

    finding: str
    what: str
    ours: float


@dataclass(frozen=True, kw_only=True)
class Table:
    """Figures that were not published, or not as numbers: texts in rows."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What an experiment found.

    Attributes
    ----------
    findings
        Published figures beside ours.
    panels
        The figures; the name of each is that of a file, unique among all experiments.
    stands_on
        Which measurements the figures stand on, a sentence each (:func:`simulator.paper.basis.basis`).
    changes
        Evidence for the reasons of what deviates.
    tables
        Further figures of ours.
    notes
        What a reader has to know: what was assumed where the paper is silent, what differs.
    """

    findings: tuple[Finding, ...]
    panels: tuple[Panel, ...]
    stands_on: tuple[str, ...]
    changes: tuple[Change, ...] = ()
    tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = [finding.name for finding in self.findings]
        assert len(set(names)) == len(names), "findings share a name"
        assert {change.finding for change in self.changes} <= set(names), "a change of no finding"


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One experiment: a command, a section of the page, a figure or more.

    Attributes
    ----------
    name
        What ``simulator paper`` calls it: "table-4".
    title
        Heading of its section.
    paper
        :data:`SARATHI`, :data:`SARATHI_SERVE` or :data:`BEYOND`.
    shows
        One sentence: what the paper shows with it.
    about_s
        Seconds that it takes on two cores, roughly.
    plan
        Begins it anew; the folder is empty, its own, and gone when it is over (for profiles that it derives). Trials
        are yielded, what is quick is computed by the plan itself.
    """

    name: str
    title: str
    paper: str
    shows: str
    about_s: int
    plan: Callable[[Path], Plan[Findings]]
