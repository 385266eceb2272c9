"""From a file or folder of somebody's tables to a linted profile of one device."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from profiler.device import Device, load_device
from profiler.duplicates import merge_duplicates
from profiler.importers.family import Family, Part, model_of
from profiler.importers.measured_on import device_of_tables
from profiler.importers.raw_file import SUFFIXES, read_raw
from profiler.importers.recognition import FAMILIES, Recognised, device_of, recognise
from profiler.lint import Roofline, lint
from profiler.model import Model, load_model
from profiler.profile import Meta, Profile
from profiler.units import doubt
from traces.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

NAMES = ", ".join(family.name for family in FAMILIES)


def import_tables(path: str | PathLike[str], device: str | None = None, *, model: str | None = None) -> Profile:
    """Read one file, one device's folder, or a family's folder that holds one device.

    Every row is linted against the roofline of the device (:func:`profiler.lint.lint`), every table for the unit
    of its times (:func:`profiler.units.doubt`); equal shapes become one row with their median where their times
    agree (:func:`profiler.duplicates.merge_duplicates`). What was left out, and why, is counted in
    ``meta["refused"]``.

    Parameters
    ----------
    device
        A preset or a JSON file; by default what the folders or the tables themselves say. Of a folder with
        tables of several devices only this one's are read.
    model
        A preset or ``config.json`` for tables that name layers without their sizes; by default a folder's
        name.

    Raises
    ------
    InputError
        If no table is known, one is not sound (with file, line and column), they belong to several devices
        or families, say that they were measured on another one than their folder or ``device``, the device is
        unknown, times are in another unit or of equal shapes disagree, or not one row is possible.
    """
    root = Path(path)
    chosen = load_device(device) if device is not None else None
    given = load_model(model) if model is not None else None
    left_out: Counter[str] = Counter()
    tables = _tables(_of_device(_files(root), chosen, root), root, left_out)
    models = [given or model_of(table.raw.path) for table in tables]
    parts = [table.family.convert(table.kind, table.raw, each) for table, each in zip(tables, models, strict=True)]
    for part in parts:
        left_out.update(part.left_out)
    target = device_of_tables(root, [table.raw.path for table in tables], parts, chosen)
    for each, part in zip(tables, parts, strict=True):
        _check_units(each, part, target)
    table = _linted(parts, target, left_out, root)
    return Profile(_meta(tables[0].family, target, parts, models, table, left_out), table)


def _files(root: Path) -> list[Path]:
    if root.is_file():
        if not root.name.endswith(SUFFIXES):
            raise InputError("is no table", where=root, expected=f"a name in {', '.join(SUFFIXES)}")
        return [root]
    if not root.is_dir():
        raise InputError("no such file or folder", where=root, expected=f"tables of {NAMES}")
    found = sorted(path for path in root.rglob("*") if path.name.endswith(SUFFIXES) and path.is_file())
    if not found:
        raise InputError("holds no table", where=root, expected=f"tables of {NAMES}")
    return found


def _of_device(files: Sequence[Path], device: Device | None, root: Path) -> list[Path]:
    devices = {path: device_of(path) for path in files}
    different = sorted({found.name for found in devices.values() if found is not None})
    if len(different) < 2:
        return list(files)
    if device is None:
        wish = "the folder of one device, or --device"
        raise InputError(f"holds tables of {', '.join(different)}", where=root, expected=wish)
    kept = [path for path, found in devices.items() if found is None or found.name == device.name]
    if not kept:
        raise InputError(f"holds no table of {device.name}", where=root, expected=f"one of {', '.join(different)}")
    return kept


def _tables(files: Sequence[Path], root: Path, left_out: Counter[str]) -> list[Recognised]:
    """Return the tables to convert, all of one family; the others are counted in ``left_out``."""
    known: dict[Path, Recognised] = {}
    for path in files:
        raw = read_raw(path)
        found = recognise(raw)
        if found is None:
            left_out[f"{path.name}: no known table"] += len(raw)
        else:
            known[path] = found
    families = {id(table.family): table.family for table in known.values()}
    if len(families) != 1:
        what = (
            f"holds tables of {', '.join(each.name for each in families.values())}" if families else "is no known table"
        )
        raise InputError(what, where=root, expected=f"columns of one of {NAMES}")
    chosen, others = next(iter(families.values())).choose(list(known))
    for name, reason in others.items():
        left_out[f"{Path(name).stem} {Path(name).parent.name}: {reason}"] += len(known[Path(name)].raw)
    return [known[path] for path in chosen]


def _check_units(table: Recognised, part: Part, device: Device) -> None:
    """Refuse a file whose times are in another unit than its family's."""
    import pyarrow as pa

    if not part.tables or not table.raw.units:
        return
    column, unit = next(iter(table.raw.units.items()))
    found = doubt(pa.concat_tables(part.tables), Roofline.of(device), unit)
    if found is not None:
        raise InputError(found, where=table.raw.where(column), expected=f"times of {device.title} in {unit}")


def _linted(parts: Sequence[Part], device: Device, left_out: Counter[str], root: Path) -> pa.Table:
    import pyarrow as pa

    tables = [table for part in parts for table in part.tables]
    rows = pa.concat_tables(tables) if tables else None
    if rows is None or not rows.num_rows:
        raise InputError("holds no row that a profile has a place for", where=root, expected=_counts(left_out))
    kept, refused = lint(rows, device)
    left_out.update(refused)
    if not kept.num_rows:
        what = f"all {rows.num_rows} rows beat the roofline of {device.name} ({_counts(refused)})"
        raise InputError(what, where=root, expected="times that the device can reach")
    merged = merge_duplicates(kept, where=root)
    left_out.update(merged.left_out())
    if not merged.table.num_rows:
        what = f"not one of {kept.num_rows} rows can be trusted ({_counts(merged.left_out())})"
        raise InputError(what, where=root, expected="times of equal shapes that agree")
    return merged.table


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "rows"


def _meta(
    family: Family,
    device: Device,
    parts: Sequence[Part],
    models: Sequence[Model | None],
    table: pa.Table,
    left_out: Mapping[str, int],
) -> dict[str, object]:
    names = {None if model is None else model.name for model in models}
    versions: dict[str, str] = {}
    for part in parts:
        versions |= part.versions
    dtypes = Counter(table["dtype"].to_pylist()).most_common()
    meta = Meta(
        device=device.name,
        device_name=next((part.device_name for part in parts if part.device_name), device.title),
        model=names.pop() if len(names) == 1 else None,
        dtype=dtypes[0][0],
        versions=versions,
        timed_by=family.timed_by,
        source=family.source,
        rows=table.num_rows,
        refused=dict(sorted(left_out.items())),
        ceilings=asdict(Roofline.of(device)),
    )
    return asdict(meta)
