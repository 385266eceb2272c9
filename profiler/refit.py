"""A profile of one's own: fitted in seconds, and remembered by its content."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from profiler.fitted import SCHEMA_VERSION, FittedDevice
from profiler.profile import META_FILE, OPS_FILE, read_profile
from profiler.transfer import complete
from traces.errors import InputError

if TYPE_CHECKING:
    from profiler.device import Device

FIT_VERSION = 1
"""Counts up with every change of the fit, so that what an older one left in the cache is not taken."""


def cache_folder() -> Path:
    """Return where fitted profiles are remembered: ``$XDG_CACHE_HOME/charioteer`` or ``~/.cache/charioteer``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "charioteer" / "fitted"


def fit_cached(path: str | PathLike[str], device: Device) -> FittedDevice:
    """Return the fit of the profile folder ``path``, which must measure ``device``, complete with borrowed
    ops.

    Raises
    ------
    InputError
        If the profile is broken, refused by the roofline, measures another device, or holds no GEMM rows.
    """
    from profiler.fit import fit

    profile = read_profile(path)
    if profile.meta["device"] != device.name:
        raise InputError(f"measures {profile.meta['device']!r}", where=path, expected=f"a profile of {device.name!r}")
    remembered = cache_folder() / f"{_content_hash(Path(path), device)}.json"
    if remembered.is_file():
        return complete(FittedDevice.load(remembered), device)
    fitted = fit(profile, device)
    _remember(fitted, remembered)
    return complete(fitted, device)


def _content_hash(folder: Path, device: Device) -> str:
    content = hashlib.sha256()
    content.update(json.dumps([FIT_VERSION, SCHEMA_VERSION, asdict(device)], default=str).encode())
    for name in (META_FILE, OPS_FILE):
        content.update((folder / name).read_bytes())
    return content.hexdigest()[:32]


def _remember(fitted: FittedDevice, path: Path) -> None:
    """Keep ``fitted`` for the next time; a cache that cannot be written is no error."""
    try:
        fitted.save(path)
    except InputError:
        return
