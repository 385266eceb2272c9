"""What a matrix product [m, k] x [k, n] costs by its physics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from profiler import gemm_kernel
from profiler.tile import ALL_TILES, FAMILIES, Floats, Tile, quantised_flops, tiles_of, wave_waste

if TYPE_CHECKING:
    from profiler.device import Device

Shape = Mapping[str, Floats]
OP = "gemm"
KEYS = ("m", "n", "k", "element_bytes")
NAMES = (
    "launch_s",
    "per_1024_k_s",
    "large_tile_efficiency",
    "middle_tile_efficiency",
    "narrow_tile_efficiency",
    "small_tile_efficiency",
    "wave_stiffness",
    "weight_bandwidth_efficiency",
    "activation_bandwidth_efficiency",
    "overlap_exponent",
)
START = (4e-6, 0.2e-6, 0.9, 0.85, 0.7, 0.5, 0.5, 0.8, 0.6, 2.0)
LOWEST = (0.0, 0.0, 0.4, 0.3, 0.2, 0.1, 0.0, 0.3, 0.1, 1.0)
HIGHEST = (2e-5, 5e-6, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 8.0)


def physics(coefficients: Mapping[str, float], shape: Shape, device: Device) -> Floats:
    """Return seconds: of the quickest kernel where ``coefficients`` tell of kernels, else :func:`transferable`."""
    of_kernels = gemm_kernel.NAMES[0] in coefficients
    return (gemm_kernel.seconds if of_kernels else transferable)(coefficients, shape, device)


def transferable(coefficients: Mapping[str, float], shape: Shape, device: Device) -> Floats:
    """Return seconds by what holds on other devices too: ``launch + per_k k + (C^p + M^p)^(1/p)``.

    C is the time of the wave-quantised work at the peak rate (the best of a few tile shapes), M the time of
    moving weights and activations, each at its own share of the memory bandwidth; p tells how well they
    overlap.
    """
    m, n, k = shape["m"], shape["n"], shape["k"]
    c = coefficients
    efficiency = [c[name] for name in NAMES[2 : 2 + len(FAMILIES)]]
    work = quantised_flops(m, n, k, device.sms, efficiency, c["wave_stiffness"])
    compute_s = work / device.peak_flops
    weight_s = shape["element_bytes"] * n * k / c["weight_bandwidth_efficiency"]
    activation_s = shape["element_bytes"] * m * (n + k) / c["activation_bandwidth_efficiency"]
    memory_s = (weight_s + activation_s) / device.memory_bandwidth_bytes_per_s
    longer, shorter = np.maximum(compute_s, memory_s), np.minimum(compute_s, memory_s)
    p = c["overlap_exponent"]
    busy = longer * (1 + (shorter / longer) ** p) ** (1 / p)
    return np.asarray(c["launch_s"] + c["per_1024_k_s"] * k / 1024 + busy, dtype=np.float64)


def features(shape: Shape, device: Device) -> Floats:
    """Return [rows, features] for the residual.

    Rows and depth; how well the output fills waves of each tile; waves; FLOPs per byte against the
    device's; and the time the bytes need. The width n is left out: it counts through tiles and bytes, so
    that what was learned holds between the widths that were measured.
    """
    m, n, k = shape["m"], shape["n"], shape["k"]
    memory_s = shape["element_bytes"] * (n * k + m * (n + k)) / device.memory_bandwidth_bytes_per_s
    columns = [np.log2(m), np.log2(k)]
    columns += [np.log2(wave_waste(m, n, tile, device.sms)) for tile in ALL_TILES]
    columns += [np.log2(tiles_of(m, n, tile) / device.sms) for tile in (Tile(128, 128), Tile(64, 64))]
    columns += [np.log2(2.0 * m * n * k / device.peak_flops / memory_s), np.log2(memory_s)]
    return np.stack(columns, axis=1)


def groups(shape: Shape) -> Floats:
    """Return one number a weight shape [k, n]: rows of one number belong to one layer of one model."""
    return np.asarray(shape["n"] * 2.0**24 + shape["k"], dtype=np.float64)
