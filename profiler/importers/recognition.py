"""Which family's table is this? Its columns tell, and the folders tell of which device."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from profiler.device import Device, device_called, load_device
from profiler.importers.aiconfigurator import AICONFIGURATOR
from profiler.importers.family import Family, plain
from profiler.importers.llmservingsim import LLMSERVINGSIM
from profiler.importers.llmservingsim_v0 import LLMSERVINGSIM_V0
from profiler.importers.raw_table import RawTable
from profiler.importers.vidur import VIDUR
from traces.errors import InputError

FAMILIES = (AICONFIGURATOR, LLMSERVINGSIM_V0, LLMSERVINGSIM, VIDUR)
LIKENESS = 0.6
"""Share of a kind's columns from which on a table is taken to be of that kind, with a column missing."""
FOLDERS: Mapping[str, str] = {
    "a100": "a100-sxm",
    "a100dgx": "a100-sxm",
    "a100pairwisenvlink": "a100-pcie",
    "a40pairwisenvlink": "a40",
    "a800": "a100-sxm",
}
"""Folders of these families that have no device's own name (an A800 is an A100 with slower links)."""


class Recognised(NamedTuple):
    """A table, and of which kind of which family it is."""

    family: Family
    kind: str
    raw: RawTable


def recognise(raw: RawTable) -> Recognised | None:
    """Return what ``raw`` is by its columns, or None.

    Raises
    ------
    InputError
        If it is nearly one of the known tables, but misses a column.
    """
    kinds = [(family, kind, columns) for family in FAMILIES for kind, columns in family.kinds.items()]
    whole = [entry for entry in kinds if entry[2] <= raw.columns]
    if whole:
        family, kind, _ = max(whole, key=lambda entry: len(entry[2]))
        return Recognised(family, kind, raw)
    family, kind, columns = max(kinds, key=lambda entry: len(entry[2] & raw.columns) / len(entry[2]))
    if len(columns & raw.columns) / len(columns) < LIKENESS:
        return None
    missing = sorted(columns - raw.columns)[0]
    raise InputError(f"column {missing!r} is missing", where=raw.path, expected=f"a {kind} table of {family.name}")


def device_of(path: Path) -> Device | None:
    """Return the device that the nearest folder on the way to ``path`` is named after, if there is one."""
    for folder in reversed(path.resolve().parts[:-1]):
        name = plain(folder)
        found = load_device(FOLDERS[name]) if name in FOLDERS else device_called(folder)
        if found is not None:
            return found
    return None
