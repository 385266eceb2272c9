"""Is every row of a profile sound?"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from profiler.device import Device, device_names, load_device
from profiler.duplicates import merge_duplicates
from profiler.lint import Roofline, refusals
from profiler.profile import COUNT_COLUMN, OPS, SHAPE_COLUMNS, TIME_COLUMNS
from profiler.units import doubt
from traces.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

    from profiler.profile import Meta, Profile


def roofline_of(meta: Meta) -> Roofline | None:
    """Return what bounds the times of a profile: the ceilings it states, else those of its device preset."""
    known = {field.name for field in dataclasses.fields(Roofline)}
    stated = {name: value for name, value in meta.ceilings.items() if name in known}
    if len(stated) == len(known):
        return Roofline(**stated)
    if meta.device in device_names():
        return dataclasses.replace(Roofline.of(load_device(meta.device)), **stated)
    return None


def device_of(profile: Profile, device: Device | None = None) -> Device:
    """Return the device of a profile, a CPU's with what was measured in place of the defaults.

    Parameters
    ----------
    device
        The figures to start from; None: the preset that the profile names.

    Raises
    ------
    InputError
        If the profile's device is no preset.
    """
    return as_measured(device or load_device(str(profile.meta["device"])), profile.meta["ceilings"])


def as_measured(device: Device, ceilings: Mapping[str, Any]) -> Device:
    """Return ``device``, a CPU's with the ``ceilings`` of a profile in place of the defaults."""
    known = {field.name for field in dataclasses.fields(Device)}
    stated = {name: value for name, value in ceilings.items() if name in known}
    return dataclasses.replace(device, **stated) if device.is_cpu else device


def check_rows(table: pa.Table, meta: Meta, *, where: str | PathLike[str], roofline: bool = True) -> None:
    """Refuse a table of ops with a value that cannot be.

    Parameters
    ----------
    roofline
        Also refuse times that beat the roofline of :func:`roofline_of`, or are in another unit than seconds.

    Raises
    ------
    InputError
        At the first such value with its row and column; if equal shapes have times that disagree; or with how many
        rows beat the roofline, by reason.
    """
    _check_values(table, where)
    _check_duplicates(table, where)
    bound = roofline_of(meta) if roofline else None
    if bound is None:
        return
    unsure = doubt(table, bound)
    if unsure is not None:
        raise InputError(unsure, where=f"{where}, column 'time_s'", expected=f"times of {meta.device} in s")
    reasons = refusals(table, bound)
    if (reasons != "").any():
        ops = np.asarray(table["op"].to_pylist(), dtype=np.str_)
        pairs = np.char.add(np.char.add(ops, ": "), reasons)[reasons != ""]
        named = ", ".join(f"{count} {name}" for name, count in zip(*np.unique(pairs, return_counts=True), strict=True))
        what = f"{len(pairs)} of {len(reasons)} rows beat the roofline of {meta.device} ({named})"
        raise InputError(what, where=where, expected="times that the device can reach")


def _check_duplicates(table: pa.Table, where: str | PathLike[str]) -> None:
    disagreeing = merge_duplicates(table, where=where).left_out()
    named = ", ".join(f"{count} {reason}" for reason, count in disagreeing.items() if "same shape" not in reason)
    if named:
        raise InputError(f"equal shapes differ ({named})", where=where, expected="one time a shape")


def _check_values(table: pa.Table, where: str | PathLike[str]) -> None:
    for name in table.column_names:
        if table[name].null_count:
            row = int(np.flatnonzero(np.asarray(table[name].is_null()))[0])
            raise InputError("value is null", where=f"{where}, row {row + 1}, column {name!r}")
    ops = np.asarray(table["op"].to_pylist(), dtype=np.str_)
    _refuse(table, "op", ~np.isin(ops, OPS), f"one of {', '.join(OPS)}", where)
    for name in (*SHAPE_COLUMNS, COUNT_COLUMN):
        _refuse(table, name, table[name].to_numpy() < 0, "an integer >= 0", where)
    for name in TIME_COLUMNS:
        values = table[name].to_numpy()
        unknown = np.isnan(values) if name == "spread_s" else np.zeros(len(values), dtype=np.bool_)
        _refuse(table, name, ~(np.isfinite(values) | unknown) | (values < 0), "a time >= 0 in seconds", where)


def _refuse(
    table: pa.Table, name: str, wrong: npt.NDArray[np.bool_], expected: str, where: str | PathLike[str]
) -> None:
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        place = f"{where}, row {row + 1}, column {name!r}"
        raise InputError(f"value is {table[name][row].as_py()}", where=place, expected=expected)
