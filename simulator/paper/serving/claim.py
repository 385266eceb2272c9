"""Published ratios of Sarathi-Serve's capacity to that of another system, beside ours, with what explains them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log

from simulator.paper.experiment import SAME, SAME_CAPACITY, Change, Finding
from simulator.paper.serving.grid import Grid, gain
from simulator.paper.serving.setup import TITLES


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A ratio that the paper prints, and where.

    Attributes
    ----------
    dataset, target, over
        For which requests, within which latency target, over the capacity of which system.
    published
        How many times that capacity.
    source
        Where it is printed.
    doubt
        What the paper leaves open about it, a sentence; "" for nothing.
    headline
        Whether the paper is known for it.
    """

    dataset: str
    target: str
    over: str
    published: float
    source: str
    doubt: str = ""
    headline: bool = True

    @property
    def name(self) -> str:
        """The name of its finding."""
        return f"{self.dataset}, {self.target}: Sarathi-Serve over {TITLES[self.over]}"

    def ours(self, grid: Grid) -> float:
        """Return the ratio of ours."""
        return gain(grid, self.dataset, self.target, self.over)

    def finding(self, grid: Grid, changed: Mapping[str, Grid], why: str) -> Finding:
        """Return it beside ours; ``changed`` are the same capacities with one thing changed, by what was changed,
        ``why`` says what they mean."""
        ours = self.ours(grid)
        deviates = not abs(ours / self.published - 1) <= SAME
        told = [self.doubt, told_by({what: self.ours(each) for what, each in changed.items()}, self, ours), why]
        return Finding(
            name=self.name,
            published=self.published,
            ours=ours,
            unit="x",
            source=self.source,
            limit=SAME_CAPACITY,
            headline=self.headline,
            reason=" ".join(part for part in told if part) if deviates else "",
        )

    def changes(self, changed: Mapping[str, Grid]) -> list[Change]:
        """Return its ratio with each change."""
        return [Change(finding=self.name, what=what, ours=self.ours(each)) for what, each in changed.items()]


def told_by(ratios: Mapping[str, float], claim: Claim, ours: float) -> str:
    """Say what each change makes of the gap between our ratio and the published one, in logs."""
    gap = log(claim.published / ours)
    parts = [f"{what}: {value:.2f}x, {_share(log(value / ours) / gap)}" for what, value in ratios.items()]
    return f"One thing changed at a time: {'; '.join(parts)}." if parts else ""


def _share(share: float) -> str:
    percent = round(100 * abs(share))
    return f"{percent} % of the gap" if share >= 0 else f"the gap {percent} % wider"


def judged(
    claims: Sequence[Claim], grid: Grid, changed: Mapping[str, Grid], why: str
) -> tuple[tuple[Finding, ...], tuple[Change, ...]]:
    """Return the findings of claims, and the evidence."""
    findings = tuple(claim.finding(grid, changed, why) for claim in claims)
    return findings, tuple(change for claim in claims for change in claim.changes(changed))
