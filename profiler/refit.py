"""A profile of one's own: fitted in seconds, and remembered by its content."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from importlib.metadata import version
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from profiler.cost_model import CostModel
from profiler.deployment import Deployment
from profiler.engine_fit import FEWEST_ROWS as FEWEST_ITERATIONS
from profiler.engine_fit import fit_engine
from profiler.fitted import SCHEMA_VERSION, FittedDevice
from profiler.iteration import OP as ITERATION
from profiler.iteration import DesignedBatch, shapes_of
from profiler.model import Model
from profiler.op import GEMM
from profiler.profile import META_FILE, OPS_FILE, Meta, read_profile
from profiler.profile_check import as_measured, device_of
from profiler.transfer import complete
from traces.errors import InputError
from traces.settings import from_mapping

if TYPE_CHECKING:
    from profiler.device import Device
    from profiler.profile import Profile

LIBRARIES = ("numpy", "scipy", "scikit-learn")


def cache_folder() -> Path:
    """Return where fitted profiles are remembered: ``$XDG_CACHE_HOME/charioteer`` or ``~/.cache/charioteer``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "charioteer" / "fitted"


def fit_cached(path: str | PathLike[str], device: Device) -> FittedDevice:
    """Return the fit of the profile folder ``path``, which must measure ``device``, complete with borrowed
    ops. The same folder gives the same fit, whether it was remembered or not.

    Raises
    ------
    InputError
        If the profile is broken, refused by the roofline, measures another device, or holds too few GEMM rows.
    """
    from profiler.fit import FEWEST_ROWS

    profile = read_profile(path)
    hardware = hardware_of(profile, device, where=path)
    remembered = cache_folder() / f"{_content_hash(Path(path), hardware)}.json"
    if remembered.is_file():
        return complete(FittedDevice.load(remembered), hardware)
    fitted = fit_profile(profile, hardware).through_json()
    if GEMM.name not in fitted.ops:
        wish = f"at least {FEWEST_ROWS} sound rows of {GEMM.name}: most of an iteration"
        raise InputError("too few rows of matrix products", where=path, expected=wish)
    _remember(fitted, remembered)
    return complete(fitted, hardware)


def placed_fit(path: str | PathLike[str], deployment: Deployment) -> tuple[Deployment, FittedDevice]:
    """Return ``deployment`` on the device as it was measured, and what was learned of it.

    Parameters
    ----------
    path
        A profile folder, which is fitted (:func:`fit_cached`), or a JSON file that ``profiler fit`` or ``profiler
        calibrate`` wrote.

    Raises
    ------
    InputError
        If it is broken, or of another device; a calibrated one also if it is of another model.
    """
    device = deployment.hardware
    if Path(path).is_file():
        fitted = FittedDevice.load(path)
        _check_calibrated(fitted, deployment, where=path)
        measured = _measurements(fitted)
        hardware = as_measured(device, measured.ceilings)
        fused = bool(fitted.origin.get("calibration", measured.sizes).get("fused", True))
        return deployment.on(hardware, fused=fused), complete(fitted, hardware)
    read = read_profile(path)
    hardware = hardware_of(read, device, where=path)
    fused = bool(read.meta["sizes"].get("fused", True))
    return deployment.on(hardware, fused=fused), fit_cached(path, device)


def _measurements(fitted: FittedDevice) -> Meta:
    """Return the header of the profile that ``fitted`` was fitted to, an empty one where it was not one profile."""
    stated = fitted.origin.get("measurements")
    if isinstance(stated, dict):
        return from_mapping(Meta, stated, where=f"fit of {fitted.device}, measurements")
    return Meta(device=fitted.device, device_name="", dtype="", timed_by="", source="")


def _check_calibrated(fitted: FittedDevice, deployment: Deployment, *, where: str | PathLike[str]) -> None:
    made = fitted.origin.get("calibration", {"device": fitted.device})
    for name, wanted in (("device", deployment.hardware.name), ("model", deployment.spec.name)):
        if made.get(name, wanted) != wanted:
            raise InputError(f"is of {name} {made[name]!r}", where=where, expected=f"one of {wanted!r}")


def fit_profile(profile: Profile, hardware: Device, progress: Callable[[str], None] | None = None) -> FittedDevice:
    """Return the fit of every op of ``profile`` (:func:`profiler.fit.fit`), and of the engine's iterations if it has
    enough of them.

    Raises
    ------
    InputError
        If no op has enough rows, or the model of the iterations is not said in full.
    """
    from profiler.fit import fit

    fitted = fit(profile, hardware, progress)
    rows = [row for row in profile.table.to_pylist() if row["op"] == ITERATION]
    if len(rows) < FEWEST_ITERATIONS:
        return fitted
    model = from_mapping(Model, profile.meta["sizes"], where="profile.json, sizes")
    placed = Deployment(model=model, dtype=profile.meta["dtype"], device=hardware.name)
    cost_model = CostModel(placed.on(hardware, fused=model.fused), complete(fitted, hardware))
    batches = [DesignedBatch(shape) for shape in shapes_of(rows)]
    parts = [cost_model.op_times(batch) for batch in batches]
    time_s = np.asarray([row["time_s"] for row in rows])
    spread_s = np.asarray([row["spread_s"] for row in rows])
    engine = fit_engine(parts, batches, time_s, model.layers, spread_s=spread_s)
    return replace(fitted, engine=engine)


def hardware_of(profile: Profile, device: Device, *, where: str | PathLike[str]) -> Device:
    """Return ``device``, with the rates that ``profile`` found in place of a CPU's defaults.

    Raises
    ------
    InputError
        If the profile measures another device.
    """
    if profile.meta["device"] != device.name:
        raise InputError(f"measures {profile.meta['device']!r}", where=where, expected=f"a profile of {device.name!r}")
    return device_of(profile, device)


def _content_hash(folder: Path, device: Device) -> str:
    """Return a name for what decides a fit: the rows, the device, this package's sources, the libraries."""
    content = hashlib.sha256()
    libraries = {name: version(name) for name in LIBRARIES}
    content.update(json.dumps([SCHEMA_VERSION, asdict(device), libraries], default=str).encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        content.update(source.read_bytes())
    for name in (META_FILE, OPS_FILE):
        content.update((folder / name).read_bytes())
    return content.hexdigest()[:32]


def _remember(fitted: FittedDevice, path: Path) -> None:
    """Keep ``fitted`` for the next time; a cache that cannot be written is no error."""
    try:
        fitted.save(path)
    except InputError:
        return
