"""Fitted devices that ship with the package, and how they stand in for devices nobody measured."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from importlib.resources import files
from math import log
from pathlib import Path
from typing import TYPE_CHECKING

from profiler.device import load_device
from profiler.fitted import FittedDevice
from profiler.op import OPS

if TYPE_CHECKING:
    from profiler.device import Device

FOLDER = "fitted"
NEAREST = {
    "ampere": ("ampere", "ada", "hopper", "blackwell"),
    "hopper": ("hopper", "blackwell", "ada", "ampere"),
    "ada": ("ada", "hopper", "ampere", "blackwell"),
    "blackwell": ("blackwell", "hopper", "ada", "ampere"),
    "cpu": ("cpu", "ampere", "ada", "hopper", "blackwell"),
}
"""Architectures by how well their physics was measured to transfer, the own one first. To an RTX 4090 (Ada) and an
RTX PRO 6000 (Blackwell), GEMMs and decode attention transfer better from Hopper than from Ampere (median errors
18 and 8 % against 24 and 10 %; 9 and 6 % against 14 and 15 %)."""


def shipped_names() -> list[str]:
    """Return the names of the devices whose fitted coefficients ship with the package."""
    folder = files("profiler").joinpath(FOLDER)
    return sorted(
        entry.name.removesuffix(".json") for entry in folder.iterdir() if entry.name.endswith(".json")
    )


@cache
def load_shipped(name: str) -> FittedDevice:
    """Return the coefficients of one of :func:`shipped_names`."""
    return FittedDevice.load(Path(str(files("profiler").joinpath(FOLDER, f"{name}.json"))))


def load_fitted(device: Device) -> FittedDevice:
    """Return what is known about ``device``: its own coefficients if they ship, else its nearest relative's.

    A relative brings its physics without corrections: efficiencies, launches and overlaps hold across devices of
    one kind, while what a residual learned belongs to the kernels of one device. Its bands are widened to what
    transfers were measured to miss. Ops that the file lacks come from the next relative that has them.
    """
    relatives = by_distance(device)
    own = load_shipped(relatives[0])
    if own.device != device.name:
        own = replace(own, ops={name: op.physics_only() for name, op in own.ops.items()})
    return complete(own, device)


def complete(fitted: FittedDevice, device: Device) -> FittedDevice:
    """Return ``fitted`` with the ops it lacks, as physics, from the nearest shipped device that has them."""
    ops, borrowed = dict(fitted.ops), dict(fitted.borrowed)
    for name in OPS:
        if name not in ops:
            donor = next(relative for relative in by_distance(device) if name in load_shipped(relative).ops)
            ops[name] = load_shipped(donor).ops[name].physics_only()
            borrowed[name] = donor
    return replace(fitted, ops=ops, borrowed=borrowed)


def by_distance(device: Device) -> list[str]:
    """Return the shipped devices, nearest first: itself, then by architecture, then by FLOPs per byte of memory."""

    def distance(name: str) -> tuple[bool, int, float, str]:
        other = load_device(name)
        kind = NEAREST[device.architecture].index(other.architecture)
        return name != device.name, kind, abs(log(_intensity(other) / _intensity(device))), name

    return sorted(shipped_names(), key=distance)


def _intensity(device: Device) -> float:
    return device.peak_flops / device.memory_bandwidth_bytes_per_s
