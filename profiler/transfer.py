"""Fitted devices that ship with the package, and how they stand in for devices nobody measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from importlib.resources import files
from math import log
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from profiler.attention_fit import move_attention
from profiler.bands import COVERAGES, Bands
from profiler.device import load_device
from profiler.fitted import FittedDevice, FittedOp
from profiler.op import DECODE_ATTENTION, OPS, PREFILL_ATTENTION, Op, Shape
from profiler.physics_fit import fit_physics
from profiler.tile import Floats

if TYPE_CHECKING:
    from profiler.device import Device

FOLDER = "fitted"
KIND = "transfers between devices"
NEAREST = {
    "ampere": ("ampere", "ada", "hopper", "blackwell"),
    "hopper": ("hopper", "blackwell", "ada", "ampere"),
    "ada": ("ada", "hopper", "ampere", "blackwell"),
    "blackwell": ("blackwell", "hopper", "ada", "ampere"),
    "cpu": ("cpu", "ampere", "ada", "hopper", "blackwell"),
}
"""Architectures by how well their physics was measured to transfer, the own one first. To an RTX 4090 (Ada)
and an RTX PRO 6000 (Blackwell), GEMMs transfer better from Hopper than from Ampere (median errors 18 and 8 % against
24 and 8 %)."""
NEAREST_ATTENTION = {**NEAREST, "ada": ("ada", "ampere", "hopper", "blackwell")}
NEAREST_ATTENTION["blackwell"] = ("blackwell", "ada", "ampere", "hopper")
"""The same for attention: Hopper alone runs kernels of its own (FlashAttention-3). Decodes of those two miss by 8 and
10 % from Ampere, by 20 and 15 % from Hopper; prefills by 52 and 19 %, and by 36 and 34 %."""
MEASURED: Mapping[str, tuple[tuple[float, float, float, float], tuple[float, ...]]] = {
    "gemm": ((77712, 0.139, 0.453, 0.132), (0.135, 0.253, 0.362, 0.459, 0.632)),
    "prefill_attention": ((17814, 0.316, 0.782, 0.294), (0.285, 0.534, 0.656, 0.749, 0.937)),
    "decode_attention": ((22000, 0.195, 0.477, 0.235), (0.193, 0.373, 0.432, 0.482, 1.152)),
    "all_reduce": ((138, 0.157, 0.425, 0.210), (0.155, 0.310, 0.454, 0.512, 0.691)),
    "elementwise": ((960, 0.134, 0.828, 0.267), (0.143, 0.352, 0.793, 1.016, 1.654)),
}
"""What transfers miss, from ``bench/transfer.py``: rows, median, 90th percentile and time-weighted error,
and the half widths in log time of bands of the :data:`COVERAGES`. Nobody measured sends on two devices;
they count as all-reduces."""


def shipped_names() -> list[str]:
    """Return the names of the devices whose fitted coefficients ship with the package."""
    folder = files("profiler").joinpath(FOLDER)
    return sorted(entry.name.removesuffix(".json") for entry in folder.iterdir() if entry.name.endswith(".json"))


@cache
def load_shipped(name: str) -> FittedDevice:
    """Return the coefficients of one of :func:`shipped_names`."""
    return FittedDevice.load(Path(str(files("profiler").joinpath(FOLDER, f"{name}.json"))))


def load_fitted(device: Device) -> FittedDevice:
    """Return what is known about ``device``: its own coefficients if they ship, else its nearest relative's.

    A relative brings its physics without corrections: efficiencies, launches and overlaps hold across
    devices of one kind, while what a residual learned belongs to the kernels of one device (A100 to A40:
    GEMMs miss by 6 % without it, 10 % with it). Errors and bands are then those of transfers. Ops that the
    file lacks come from the next relative that has them.
    """
    own = load_shipped(by_distance(device)[0])
    if own.device != device.name:
        nearest = [name for name in own.ops if _donor(device, name) == own.device]
        own = replace(own, ops={name: _taken_over(own, name, device) for name in nearest})
    return complete(own, device)


def _donor(device: Device, op: str) -> str | None:
    """Return the nearest shipped device that has the op, None if none has."""
    return next((name for name in by_distance(device, op) if op in load_shipped(name).ops), None)


def _taken_over(donor: FittedDevice, name: str, device: Device) -> FittedOp:
    """Return an op of ``donor`` for ``device``: as it is if it was measured on ``device`` itself."""
    own = donor.source_of(name) == device.name
    return donor.ops[name] if own else as_transferred(donor.ops[name])


def as_transferred(op: FittedOp) -> FittedOp:
    """Return the op's physics alone, with the errors and bands that transfers were measured to have."""
    values, widths = MEASURED["all_reduce" if op.name == "send" else op.name]
    errors = dict(zip(("rows", "median", "p90", "time_weighted"), values, strict=True))
    bands = Bands((), dict(zip(COVERAGES, ((width,) for width in widths), strict=True)))
    return replace(op.physics_only(), errors={KIND: errors}, bands={KIND: bands})


def across_nodes(fitted: FittedDevice) -> FittedDevice:
    """Return the same for all-reduces between nodes, which nobody measured: they count as transferred."""
    return replace(fitted, ops={**fitted.ops, "all_reduce": as_transferred(fitted.ops["all_reduce"])})


def adapt(fitted: FittedOp, op: Op, shape: Shape, time_s: Floats, device: Device) -> FittedOp:
    """Return the op's physics, as the rows measured on ``device`` say it is.

    Attention moves term by term. Of matrix products the few rows fit the kernels of ``device`` anew, from what
    kernels of any GPU reach: that says more of other devices than ``fitted`` does (10 rows of an A6000: 6 %, the
    physics of an A100 10 %). Physics that is linear in its coefficients is scaled.
    """
    bare = fitted.physics_only()
    if op in (PREFILL_ATTENTION, DECODE_ATTENTION):
        return replace(bare, coefficients=move_attention(op, bare.coefficients, shape, time_s, device))
    if op.own_coefficients:
        own = fit_physics(op, shape, time_s, device, transferable=False)
        return replace(bare, coefficients={**bare.coefficients, **own})
    factor = float(np.exp(np.median(np.log(time_s / bare.predict(shape, device)))))
    scaled = {name: value * factor if op.terms else value for name, value in bare.coefficients.items()}
    return replace(bare, coefficients=scaled)


def complete(fitted: FittedDevice, device: Device) -> FittedDevice:
    """Return ``fitted`` with the ops it lacks, as physics, from the nearest shipped device that has them."""
    ops, borrowed = dict(fitted.ops), dict(fitted.borrowed)
    for name, source in borrowed.items():
        if name in ops and source != device.name:
            ops[name] = as_transferred(ops[name])
    for name in OPS:
        donor = None if name in ops else _donor(device, name)
        if donor is not None:
            ops[name] = _taken_over(load_shipped(donor), name, device)
            borrowed[name] = load_shipped(donor).source_of(name)
    return replace(fitted, ops=ops, borrowed=borrowed)


def by_distance(device: Device, op: str = "") -> list[str]:
    """Return the shipped devices, nearest first: itself, by architecture, then by FLOPs per byte of memory.

    For attention the architectures count in an order of their own.
    """
    nearest = NEAREST_ATTENTION if op.endswith("attention") else NEAREST

    def distance(name: str) -> tuple[bool, int, float, str]:
        other = load_device(name)
        kind = nearest[device.architecture].index(other.architecture)
        return name != device.name, kind, abs(log(_intensity(other) / _intensity(device))), name

    return sorted(shipped_names(), key=distance)


def _intensity(device: Device) -> float:
    return device.peak_flops / device.memory_bandwidth_bytes_per_s
