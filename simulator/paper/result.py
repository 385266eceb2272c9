"""What experiments found, together: which figures are missed, how many lie within their limits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from simulator.paper.experiment import Experiment, Finding, Findings

UNEXPLAINED = "No reason has been found."


@dataclass(frozen=True, kw_only=True)
class Result:
    """An experiment and what it found."""

    experiment: Experiment
    found: Findings

    @property
    def reasons(self) -> dict[str, list[str]]:
        """Why findings deviate, and the names of those that share a reason; what is missed without one says so."""
        found: dict[str, list[str]] = {}
        for finding in self.found.findings:
            if finding.reason or finding.missed:
                found.setdefault(finding.reason or UNEXPLAINED, []).append(finding.name)
        return found


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


def headlines_within(results: Sequence[Result]) -> list[Placed]:
    """Return the findings that a paper is known for and that are not missed."""
    return [each for each in placed(results) if each[1].headline and not each[1].missed]


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
