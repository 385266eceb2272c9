"""What experiments found, together: which figures are missed, how many lie within their limits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from simulator.paper.experiment import Change, Experiment, Finding, Findings


@dataclass(frozen=True, kw_only=True)
class Result:
    """An experiment and what it found."""

    experiment: Experiment
    found: Findings

    def changes(self, finding: Finding) -> list[Change]:
        """Return the evidence of where a finding's deviation comes from."""
        return [change for change in self.found.changes if change.finding == finding.name]


Placed = tuple[Result, Finding]
"""A finding and the result that it stands in."""


def placed(results: Sequence[Result]) -> Iterator[Placed]:
    """Yield all findings, in order."""
    for result in results:
        for finding in result.found.findings:
            yield result, finding


def misses(results: Sequence[Result]) -> list[Placed]:
    """Return the findings that are missed: first those that a paper is known for, then the others."""
    missed = [each for each in placed(results) if each[1].missed]
    return sorted(missed, key=lambda each: not each[1].headline)


def headlines(results: Sequence[Result]) -> list[Placed]:
    """Return the findings that the papers are known for."""
    return [each for each in placed(results) if each[1].headline]


def reasons(entries: Iterable[Placed]) -> dict[tuple[str, str], list[str]]:
    """Return why findings deviate: the names of those that share a reason, by their experiment and that reason.

    What is missed without a reason says so; what is not missed and has none is left out.
    """
    found: dict[tuple[str, str], list[str]] = {}
    for result, finding in entries:
        if finding.reason or finding.missed:
            why = finding.reason or "no reason has been found."
            found.setdefault((result.experiment.name, why), []).append(finding.name)
    return found


def tally(results: Sequence[Result]) -> str:
    """Say how many of the judged figures lie within their limits, and of those that a paper is known for."""
    judged = [finding for _, finding in placed(results) if finding.limit is not None]
    if not judged:
        return "No figure is judged."
    known = [finding for finding in judged if finding.headline]
    text = f"{_within(judged)} judged figures lie within their limits"
    return f"{text}; of the headline figures {_within(known)}." if known else f"{text}."


def _within(findings: Sequence[Finding]) -> str:
    return f"{sum(not finding.missed for finding in findings):,} of {len(findings):,}"
