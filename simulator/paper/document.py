"""What experiments found, as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from simulator.paper.experiment import Experiment, Finding
from simulator.paper.result import Result, misses, placed
from traces.metrics import without_nan


def document(results: Sequence[Result], command: str) -> dict[str, Any]:
    """Return everything but the figures: null where a value is not known."""
    judged = [finding for _, finding in placed(results) if finding.limit is not None]
    found: dict[str, Any] = without_nan(
        {
            "command": command,
            "judged": len(judged),
            "within": sum(not finding.missed for finding in judged),
            "missed": [f"{result.experiment.name}: {finding.name}" for result, finding in misses(results)],
            "experiments": {result.experiment.name: _as_dict(result) for result in results},
        }
    )
    return found


def about(experiment: Experiment) -> dict[str, Any]:
    """Return what there is to say of an experiment before it is carried out."""
    return {
        "title": experiment.title,
        "paper": experiment.paper,
        "shows": experiment.shows,
        "about_s": experiment.about_s,
    }


def _as_dict(result: Result) -> dict[str, Any]:
    found = result.found
    return {
        **about(result.experiment),
        "findings": [_finding(each) for each in found.findings],
        "changes": [{"finding": each.finding, "what": each.what, "ours": float(each.ours)} for each in found.changes],
        "tables": [{"title": each.title, "head": each.head, "rows": each.rows} for each in found.tables],
        "figures": [panel.name for panel in found.panels],
        "notes": found.notes,
        "stands_on": found.stands_on,
    }


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "name": finding.name,
        "published": float(finding.published),
        "ours": float(finding.ours),
        "unit": finding.unit,
        "deviation": float(finding.deviation),
        "limit": finding.limit,
        "missed": bool(finding.missed),
        "headline": finding.headline,
        "source": finding.source,
        "cause": finding.cause,
        "reason": finding.reason,
    }
