"""Figures as texts: the same on the terminal and on the page."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from simulator.paper.experiment import Finding, Findings
from simulator.scoreboard import three_digits

FINDING_HEAD = ("figure", "published", "ours", "deviation", "limit", "")
CHANGED = "what is changed"


def finding_cells(finding: Finding) -> tuple[str, ...]:
    """Return what stands beside the name of a finding, under :data:`FINDING_HEAD`."""
    return (
        published(finding),
        amount(finding.ours, finding.unit),
        share(finding.deviation),
        "–" if finding.limit is None else f"{100 * finding.limit:g} %",
        verdict(finding),
    )


def change_rows(found: Findings) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the findings with one thing changed as the head and the rows of a table.

    A row a finding and a column a change, or the other way round where there are more changes.
    """
    values = {(change.finding, change.what): change.ours for change in found.changes}
    changed = {change.finding for change in found.changes}
    findings = [finding for finding in found.findings if finding.name in changed]
    whats = list(dict.fromkeys(change.what for change in found.changes))
    rows = [
        (each.name, published(each), amount(each.ours, each.unit), *_changed(each, whats, values)) for each in findings
    ]
    if len(whats) <= len(findings):
        return ("figure", "published", "ours", *whats), rows
    names, *columns = zip(*rows, strict=True)
    return (CHANGED, *names), list(zip(("published", "ours", *whats), *zip(*columns, strict=True), strict=True))


def _changed(finding: Finding, whats: Sequence[str], values: Mapping[tuple[str, str], float]) -> Iterator[str]:
    for what in whats:
        value = values.get((finding.name, what))
        if value is None:
            yield ""
        else:
            yield f"{amount(value, finding.unit)} ({share(value / finding.published - 1)})"


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
    """Return a deviation in percent, from twice the figure on as how many times it is; "–" for NaN."""
    if math.isnan(deviation):
        return "–"
    return f"{1 + deviation:.1f} times" if deviation >= 1 else f"{100 * deviation:+.1f} %"


def seconds(about_s: int) -> str:
    """Return about how long something takes, as people say it."""
    return f"{about_s} s" if about_s < 90 else f"{round(about_s / 60)} min"


def _with_unit(number: str, unit: str) -> str:
    return f"{number}{unit}" if unit in ("x", "") else f"{number} {unit}"
