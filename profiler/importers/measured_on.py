"""Of which device are these tables? Their folders say it, their columns say it, and they must agree."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from profiler.device import Device, device_called, device_names
from profiler.importers.family import Part, plain
from profiler.importers.recognition import device_of
from traces.errors import InputError


def device_of_tables(root: Path, paths: Sequence[Path], parts: Sequence[Part], chosen: Device | None) -> Device:
    """Return the one device of the tables ``paths``, which yielded ``parts``.

    Parameters
    ----------
    root
        What is imported, for the messages.
    chosen
        The device that was asked for; it need not be a preset.

    Raises
    ------
    InputError
        If no device is known, or there are several: of two folders, of two tables, of a table and its folder or
        ``chosen``; or if some tables are in a folder of a device and others in none, nor say themselves.
    """
    folders = {path: device_of(path) for path in paths}
    stated = {path: device_called(part.device_name) for path, part in zip(paths, parts, strict=True)}
    known = {found.name: found for found in folders.values() if found is not None}
    known = known or {found.name: found for found in stated.values() if found is not None}
    if chosen is None and len(known) != 1:
        what = f"holds tables of {', '.join(sorted(known))}" if known else "whose times these are is not known"
        wish = f"--device, one of {', '.join(device_names())} or a JSON file"
        raise InputError(what, where=root, expected=wish)
    device = next(iter(known.values())) if chosen is None else chosen
    for path, part in zip(paths, parts, strict=True):
        _check_stated(path, part, device, asked=chosen is not None)
        if any(folders.values()) and folders[path] is None and stated[path] is None:
            what = "whose times these are is not known, as it is of others beside it"
            raise InputError(what, where=path, expected=f"a folder named after {device.name} on its path")
    return device


def _check_stated(path: Path, part: Part, device: Device, *, asked: bool) -> None:
    """Refuse a table that says it was measured on another device than ``device``.

    A name that no preset has is taken on the word of somebody who asked for ``device``.
    """
    names = {plain(name) for name in (device.name, device.title, *device.driver_names)}
    if not part.device_name or plain(part.device_name) in names:
        return
    if not asked or device_called(part.device_name) is not None:
        wish = f"a table of {device.name}, as {'--device' if asked else 'its folder'} says"
        raise InputError(f"was measured on {part.device_name}", where=path, expected=wish)
