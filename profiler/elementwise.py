"""What normalisation, activation, rotary embedding and their like cost: they move bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from profiler.tile import Floats

if TYPE_CHECKING:
    from profiler.device import Device

Shape = Mapping[str, npt.NDArray[Any]]
OP = "elementwise"
KEYS = ("kind", "size_bytes")
KINDS = ("norm", "act", "rope", "add", "embedding", "sampler", "other", "fused_norm")
"""The last is an addition and the norm after it in one launch, which does not read the sum again."""
NAMES = ("launch", *KINDS)
_SIGNS = {
    "fused": "fused_norm",
    "norm": "norm",
    "act": "act",
    "rope": "rope",
    "add": "add",
    "emb": "embedding",
    "sampl": "sampler",
}


def kind_of(name: str) -> str:
    """Return which of :data:`KINDS` an op of this name is: ``input_layernorm`` is a ``norm``."""
    return next((kind for sign, kind in _SIGNS.items() if sign in name.lower()), "other")


def with_absent(coefficients: Mapping[str, float]) -> dict[str, float]:
    """Return ``coefficients`` with kinds that nobody measured (0, or absent) as slow as the mean of those measured;
    a fused norm as its two parts, and a norm as a fused one."""
    measured = {kind: coefficients[kind] for kind in KINDS if coefficients.get(kind, 0) > 0}
    mean = float(np.mean(list(measured.values()))) if measured else 1.0
    filled = {kind: measured.get(kind, mean) for kind in KINDS}
    filled["norm"] = measured.get("norm", filled["fused_norm"])
    filled["fused_norm"] = measured.get("fused_norm", (filled["norm"] + filled["add"]) / 2)
    return {"launch": coefficients["launch"], **filled}


def terms(shape: Shape, device: Device) -> Floats:
    """Return [rows, terms] in seconds: a launch, then the bytes at the memory bandwidth, by kind."""
    seconds = np.asarray(shape["size_bytes"], float) / device.memory_bandwidth_bytes_per_s
    kinds = lines(shape)
    columns = [np.full_like(seconds, 1e-6)] + [np.where(kinds == kind, seconds, 0.0) for kind in range(len(KINDS))]
    return np.stack(columns, axis=1)


def physics(coefficients: Mapping[str, float], shape: Shape, device: Device) -> Floats:
    """Return seconds: launch + bytes / (bandwidth x the share of it that this kind reaches)."""
    known = with_absent(coefficients)
    return np.asarray(terms(shape, device) @ [known[name] for name in NAMES], dtype=np.float64)


def sizes(shape: Shape) -> Floats:
    """Return the bytes moved: rows of one size are held out together, and a kind's curve runs along them."""
    return np.asarray(shape["size_bytes"], dtype=np.float64)


def lines(shape: Shape) -> Floats:
    """Return one number a kind, its place in :data:`KINDS`: each has a curve over the sizes of its own."""
    names, which = np.unique(shape["kind"], return_inverse=True)
    return np.asarray([KINDS.index(kind_of(name)) for name in names], dtype=np.float64)[which]
