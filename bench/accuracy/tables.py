"""Published tables as one set of rows a device and op."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from profiler.device import Device, load_device
from profiler.fit import rows_of, trusted
from profiler.importers import import_tables
from profiler.importers.raw_file import SUFFIXES
from profiler.importers.recognition import device_of
from profiler.op import OPS, Op
from profiler.tile import Floats

FEWEST_ROWS = 60
FEWEST_GROUPS = 10


@dataclass(frozen=True)
class OpTable:
    """The rows of one op of one table.

    Attributes
    ----------
    label
        The table's folder, as it was named.
    shape, time_s
        Shape columns, [rows] each, and seconds, [rows].
    """

    label: str
    device: Device
    op: Op
    shape: dict[str, Any]
    time_s: Floats

    def take(self, rows: Any) -> tuple[dict[str, Any], Floats]:
        """Return the shape and the time of ``rows``."""
        return {key: values[rows] for key, values in self.shape.items()}, self.time_s[rows]

    def smaller(self, most: int) -> OpTable:
        """Return the same, or about ``most`` rows of it: whole layers or head layouts where there are many."""
        if len(self.time_s) <= most:
            return self
        draws, groups = np.random.default_rng(0), self.op.groups(self.shape)
        names = draws.permutation(np.unique(groups))
        count = round(len(names) * most / len(groups))
        few = count < FEWEST_GROUPS
        rows = np.flatnonzero(draws.random(len(groups)) < most / len(groups) if few else np.isin(groups, names[:count]))
        return OpTable(self.label, self.device, self.op, *self.take(rows))


def op_tables(folder: Path, device: str | None, ops: frozenset[str]) -> Iterator[OpTable]:
    """Yield what can be judged of a folder of tables, device by device.

    An op with fewer than :data:`FEWEST_ROWS` rows, or most of whose rows beat the roofline, is left out.

    Raises
    ------
    InputError
        As :func:`profiler.importers.import_tables`.
    """
    for name in [device] if device else _devices(folder):
        profile = import_tables(folder, name)
        hardware = load_device(name or profile.meta["device"])
        for op in OPS.values():
            if op.name in ops and trusted(profile, op.name):
                shape, time_s = rows_of(profile.table, op)
                if len(time_s) >= FEWEST_ROWS:
                    yield OpTable(folder.name, hardware, op, shape, time_s)


def _devices(folder: Path) -> Sequence[str | None]:
    """Return the devices that the files of ``folder`` belong to by their folders' names, or None for what they say."""
    files = [path for path in sorted(folder.rglob("*")) if path.name.endswith(SUFFIXES)]
    found = {device.name for device in map(device_of, files) if device is not None}
    return sorted(found) if len(found) > 1 else [None]
