"""Published ratios of Sarathi-Serve's capacity to that of another system, beside ours, with what explains them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from simulator.paper.experiment import SAME, SAME_CAPACITY, Change, Finding
from simulator.paper.serving.grid import Grid, gain
from simulator.paper.serving.setup import SHORT, TITLES


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
    headline
        Whether the paper is known for it.
    """

    dataset: str
    target: str
    over: str
    published: float
    source: str
    headline: bool = True

    @property
    def name(self) -> str:
        """The name of its finding."""
        return f"{SHORT[self.dataset]}, {self.target}: Sarathi-Serve over {TITLES[self.over]}"

    def ours(self, grid: Grid) -> float:
        """Return the ratio of ours."""
        return gain(grid, self.dataset, self.target, self.over)

    def finding(self, grid: Grid, cause: str, why: str) -> Finding:
        """Return it beside ours; where it deviates ``cause`` says why in a few words, ``why`` in sentences."""
        ours = self.ours(grid)
        deviates = not abs(ours / self.published - 1) <= SAME
        return Finding(
            name=self.name,
            published=self.published,
            ours=ours,
            unit="x",
            source=self.source,
            limit=SAME_CAPACITY,
            headline=self.headline,
            cause=cause if deviates else "",
            reason=why if deviates else "",
        )

    def changes(self, changed: Mapping[str, Grid]) -> list[Change]:
        """Return its ratio with each change, by what was changed."""
        return [Change(finding=self.name, what=what, ours=self.ours(each)) for what, each in changed.items()]
