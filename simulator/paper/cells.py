"""Figures as texts: the same on the terminal and on the page."""

from __future__ import annotations

import math

from simulator.paper.experiment import Change, Finding
from simulator.scoreboard import three_digits

FINDING_HEAD = ("figure", "published", "ours", "deviation", "limit", "")
CHANGE_HEAD = ("figure", "the one thing changed", "published", "ours", "then", "deviation then")


def finding_cells(finding: Finding) -> tuple[str, ...]:
    """Return what stands beside the name of a finding, under :data:`FINDING_HEAD`."""
    return (
        published(finding),
        amount(finding.ours, finding.unit),
        share(finding.deviation),
        "–" if finding.limit is None else f"{100 * finding.limit:g} %",
        verdict(finding),
    )


def change_cells(finding: Finding, change: Change) -> tuple[str, ...]:
    """Return the cells of a change, under :data:`CHANGE_HEAD`."""
    return (
        finding.name,
        change.what,
        published(finding),
        amount(finding.ours, finding.unit),
        amount(change.ours, finding.unit),
        share(change.ours / finding.published - 1),
    )


def verdict(finding: Finding) -> str:
    """Return in a word whether ours lies within the limit."""
    if finding.limit is None:
        return "not judged"
    return "missed" if finding.missed else "within"


def published(finding: Finding) -> str:
    """Return the published figure with the digits that the paper prints."""
    return _with_unit(f"{finding.published:,.10g}", finding.unit)


def amount(value: float, unit: str) -> str:
    """Return a figure of ours with about three digits, counts in full."""
    whole = math.isfinite(value) and float(value).is_integer()
    return _with_unit(f"{value:,.0f}" if whole else three_digits(value), unit)


def share(deviation: float) -> str:
    """Return a deviation in percent; "–" for NaN."""
    return "–" if math.isnan(deviation) else f"{100 * deviation:+.1f} %"


def seconds(about_s: int) -> str:
    """Return about how long something takes, as people say it."""
    return f"{about_s} s" if about_s < 90 else f"{round(about_s / 60)} min"


def _with_unit(number: str, unit: str) -> str:
    return f"{number}{unit}" if unit in ("x", "") else f"{number} {unit}"
