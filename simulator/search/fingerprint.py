"""All that decides what a search finds, so that a journal is never taken for that of another."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from simulator.search.search import Task
from simulator.trials.candidate import Candidate
from simulator.trials.shipment import files_in

PACKAGES = ("traces", "policies", "profiler", "simulator")
"""What simulations are made of: equal versions of these have equal outcomes."""
LIBRARIES = ("charioteer", "numpy", "scipy", "simpy")


def fingerprint(task: Task) -> dict[str, Any]:
    """Return what a search is, as JSON values; files count by their contents.

    Raises
    ------
    InputError
        If a file cannot be read.
    """
    return {
        "candidates": [candidate.as_dict() for candidate in task.candidates.values()],
        "demand": task.demand.as_dict(),
        "SLO": str(task.slo),
        "objective": {
            "name": task.objective.name,
            "prices": dict(task.objective.prices.usd_per_hour),
            "request_rate": task.objective.request_rate_per_s,
        },
        "rungs": [rung.as_dict() for rung in task.ladder],
        "seed": task.seed,
        "draws": task.draws,
        "files": {path: content_hash(Path(path)) for path in files_of(task.candidates.values(), task.demand.source)},
        "versions": {**{name: version(name) for name in LIBRARIES}, "sources": sources_hash()},
    }


def files_of(candidates: Iterable[Candidate], *others: str) -> list[str]:
    """Return the files and folders that candidates name, and those of ``others`` that are there."""
    named: set[str] = {*others}
    for candidate in candidates:
        named |= candidate.names
    return sorted(name for name in named if Path(name).exists())


def content_hash(path: Path) -> str:
    """Return a hash of the bytes of a file, or of those in a folder with their names."""
    found = hashlib.sha256()
    for relative in files_in(path):
        found.update(relative.encode() + b"\0" + hashlib.sha256((path / relative).read_bytes()).digest())
    return found.hexdigest()


def sources_hash() -> str:
    """Return a hash of the program itself: its code, presets and fitted coefficients."""
    found = hashlib.sha256()
    root = Path(__file__).resolve().parents[2]
    for package in PACKAGES:
        for each in sorted((root / package).rglob("*")):
            if each.suffix in (".py", ".json"):
                found.update(str(each.relative_to(root)).encode() + b"\0" + each.read_bytes())
    return found.hexdigest()
