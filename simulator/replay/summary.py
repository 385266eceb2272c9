"""The error that another simulator reached, as ``validation/summary.txt`` gives it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from traces.errors import InputError

Key = tuple[str, str]
"""A metric and a figure of it: ``("TTFT", "P90")``."""
ROW = re.compile(r"^(\w+)\s+(Mean|Median|P\d+)\s+(-?[\d.]+)\s+(-?[\d.]+)\s+[-+]?[\d.]+\s*%\s*$")
HEADER = re.compile(r"^Metric\s+(\w+)\s+Sim\s+Diff%\s*$")


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Figures in seconds by metric and figure: what was measured, and what the other simulator said."""

    measured_s: Mapping[Key, float]
    simulated_s: Mapping[Key, float]

    def error(self, key: Key) -> float | None:
        """Return the relative error of the other simulator, None where it is not given."""
        if key not in self.measured_s:
            return None
        return self.simulated_s[key] / self.measured_s[key] - 1


def read_summary(path: Path) -> Summary | None:
    """Read a summary; None where there is no such file.

    Raises
    ------
    InputError
        If it is not the table that it should be.
    """
    if not path.is_file():
        return None
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("cannot be read", where=path, expected="UTF-8 text") from error
    if not lines or not HEADER.match(lines[0]):
        raise InputError("is no summary", where=f"{path}:1", expected="Metric, vLLM, Sim, Diff%")
    measured: dict[Key, float] = {}
    simulated: dict[Key, float] = {}
    for number, line in enumerate(lines[1:], 2):
        if not line.strip("- \t"):
            continue
        row = ROW.match(line)
        if row is None or float(row[3]) <= 0:
            raise InputError(f"row {line!r}", where=f"{path}:{number}", expected="metric, figure, ms, ms, difference")
        measured[row[1], row[2]], simulated[row[1], row[2]] = float(row[3]) / 1e3, float(row[4]) / 1e3
    return Summary(measured_s=measured, simulated_s=simulated)
