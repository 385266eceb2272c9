"""What a matrix product costs where a library picks the kernel: the quickest of many tiles and splits of k.

It tells more of the device that it was fitted to than :func:`profiler.gemm.transferable`, and less of others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from profiler.tile import LARGE, MIDDLE, NARROW, SMALL, Floats, Tile

if TYPE_CHECKING:
    from profiler.device import Device

    Shape = Mapping[str, Floats]

FAMILIES: tuple[tuple[Tile, ...], ...] = (
    LARGE,
    MIDDLE,
    (Tile(256, 64), Tile(64, 256), *NARROW),
    SMALL,
    (Tile(128, 32), Tile(32, 128), Tile(64, 32), Tile(32, 64)),
)
SPLITS = (1, 2, 4, 8, 16)
LEAST_DEPTH = 128
"""Of k, for each of the parts that it is split into."""
MOST_WAVES_SPLIT = 2
"""An output of more waves than this keeps the multiprocessors busy without a split."""
STEP_OF_K = 32
PARTIAL_BYTES = 8
"""A partial sum of 32 bits is written and read again."""
ROWS_AT_ONCE = 1024


class Prior(NamedTuple):
    """Where a coefficient is expected, and the standard deviation of its logarithm."""

    value: float
    deviation: float


PRIORS: Mapping[str, Prior] = {
    "kernel_launch_s": Prior(2.5e-6, 0.5),
    "wave_start_s": Prior(0.8e-6, 1.0),
    "pipeline_fill_k": Prior(30.0, 1.5),
    "large_efficiency": Prior(0.85, 0.2),
    "middle_efficiency": Prior(0.85, 0.2),
    "narrow_efficiency": Prior(0.75, 0.3),
    "small_efficiency": Prior(0.6, 0.4),
    "least_efficiency": Prior(0.4, 0.5),
    "stiffness": Prior(0.5, 0.7),
    "latency_per_k_s": Prior(0.8e-9, 1.0),
    "l2_bytes_per_flop": Prior(1 / 45, 0.7),
    "weight_efficiency": Prior(0.85, 0.2),
    "input_efficiency": Prior(0.8, 0.5),
    "output_efficiency": Prior(0.8, 0.5),
    "overlap": Prior(2.5, 0.5),
    "split_start_s": Prior(1e-6, 1.0),
    "split_efficiency": Prior(1.0, 1.0),
}
"""What kernels of current GPUs reach. A fit to few rows stays near, one to many moves as far as they say.

A kernel's launch, the start of a wave and of a split in seconds; the depth of k in which the pipeline of a wave has
half started; the share of the peak that tiles of each of :data:`FAMILIES` reach; how much of a wave that is not full
is paid (1: all); seconds of a step along k; what L2 delivers; shares of the memory bandwidth for weights, inputs,
outputs and partial sums, more than 1 where L2 still held some; and the exponent p, the higher the better overlapped.
"""
NAMES = tuple(PRIORS)


@dataclass(frozen=True)
class Kernels:
    """The kernels that a product may run: one column each, rows as the shapes have. All [1 or rows, kernels].

    Attributes
    ----------
    family
        Index into :data:`FAMILIES`.
    rows, columns, split
        Of the output tile, and how many parts k is cut into.
    depth
        What one block walks of k.
    waves
        Tiles over multiprocessors; ``whole_waves`` of them are begun.
    impossible
        Whether no library would run it.
    """

    family: npt.NDArray[np.int64]
    rows: Floats
    columns: Floats
    split: Floats
    depth: Floats
    waves: Floats
    whole_waves: Floats
    impossible: npt.NDArray[np.bool_]

    @staticmethod
    def of(shape: Shape, device: Device) -> Kernels:
        """Return the kernels of the products ``shape`` on ``device``, without those that none of them can run."""
        m, n, k = (shape[key][:, None] for key in "mnk")
        table = [
            (family, tile.rows, tile.columns, split)
            for family, tiles in enumerate(FAMILIES)
            for tile in tiles
            for split in SPLITS
        ]
        family, rows, columns, split = np.asarray(table, dtype=np.float64).T
        tiles = np.ceil(m / rows) * np.ceil(n / columns)
        impossible = (split > 1) & ((k < split * LEAST_DEPTH) | (tiles > MOST_WAVES_SPLIT * device.sms))
        kept = (split == 1) | ~impossible.all(axis=0)
        waves = tiles[:, kept] * split[kept] / device.sms
        depth = np.ceil(k / split[kept] / STEP_OF_K) * STEP_OF_K
        of_kernel = (family[kept].astype(np.int64), rows[kept], columns[kept], split[kept])
        return Kernels(*of_kernel, depth, waves, np.ceil(waves), impossible[:, kept])

    def seconds(self, coefficients: Mapping[str, float], shape: Shape, device: Device) -> Floats:
        """Return what each kernel would take, [rows, kernels]; infinite where it is impossible.

        ``launch + wave_start waves + (compute^p + L2^p + latency^p + memory^p)^(1/p) + split``: arithmetic at the
        tile's share of the peak, tiles read through L2, one dependent step after another along k, and the bytes
        that memory has to move.
        """
        c, m, n, k = coefficients, *(shape[key][:, None] for key in "mnk")
        width, bandwidth = shape["element_bytes"][:, None], device.memory_bandwidth_bytes_per_s
        stiffness, flops = min(c["stiffness"], 1.0), device.peak_flops / device.sms
        efficiency = np.minimum([c[name] for name in NAMES[3 : 3 + len(FAMILIES)]], 1.0)[self.family]
        walked = (stiffness * self.whole_waves + (1 - stiffness) * np.maximum(self.waves, 1.0)) * self.depth
        edge = np.minimum(m, self.rows) + np.minimum(n, self.columns)
        moved = n * k / c["weight_efficiency"] + m * k / c["input_efficiency"] + m * n / c["output_efficiency"]
        parts = (
            walked * (2 * self.rows * self.columns / (flops * efficiency)),
            walked * edge * (width / (c["l2_bytes_per_flop"] * flops)),
            walked * c["latency_per_k_s"],
            np.broadcast_to(width * moved / bandwidth, walked.shape),
        )
        longest = np.maximum.reduce(parts)
        p = max(c["overlap"], 1.0)
        busy = longest * sum((part / longest) ** p for part in parts) ** (1 / p)
        start = c["kernel_launch_s"] + c["wave_start_s"] * walked / (self.depth + c["pipeline_fill_k"])
        partials = self.split * PARTIAL_BYTES * m * n / (2 * bandwidth * c["split_efficiency"])
        split = np.where(self.split > 1, c["split_start_s"] + partials, 0.0)
        return np.where(self.impossible, np.inf, start + busy + split)


def seconds(coefficients: Mapping[str, float], shape: Shape, device: Device) -> Floats:
    """Return the seconds of the quickest kernel of each product, [rows]."""
    parts = [Kernels.of(part, device).seconds(coefficients, part, device).min(axis=1) for part in _parts(shape)]
    return np.concatenate(parts)


def choice(coefficients: Mapping[str, float], shape: Shape, device: Device) -> Floats:
    """Return [rows, features] of the quickest kernel: waves, waste of the last one, its tile and its split of k,
    what compute and memory bound alone would take of its time, and that time."""
    return np.concatenate([_choice(coefficients, part, device) for part in _parts(shape)])


def _choice(coefficients: Mapping[str, float], shape: Shape, device: Device) -> Floats:
    kernels = Kernels.of(shape, device)
    times = kernels.seconds(coefficients, shape, device)
    row, best = np.arange(len(times)), times.argmin(axis=1)
    m, n, k, time_s = shape["m"], shape["n"], shape["k"], times[row, best]
    waves, split = kernels.waves[row, best], kernels.split[best]
    memory_s = shape["element_bytes"] * (n * k + m * (n + k)) / device.memory_bandwidth_bytes_per_s
    columns = (
        waves,
        np.minimum(kernels.whole_waves[row, best] / waves, 8.0),
        kernels.rows[best] * kernels.columns[best],
        split,
        2.0 * m * n * k / device.peak_flops / time_s,
        memory_s / time_s,
        time_s,
    )
    return np.asarray(np.log2(np.stack(columns, axis=1)), dtype=np.float64)


def _parts(shape: Shape) -> Iterator[dict[str, Floats]]:
    """Yield a few rows at a time: what is computed of all kernels of all rows would not fit a cache."""
    count = len(shape["m"])
    for first in range(0, max(count, 1), ROWS_AT_ONCE):
        yield {key: values[first : first + ROWS_AT_ONCE] for key, values in shape.items()}
