"""Measuring a machine: every shape of a grid in rounds, until the time is up."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from profiler.device import Device
from profiler.kernels import Kernels, Machine, OpShape
from profiler.lint import Roofline, lint, reached
from profiler.model import Model
from profiler.profile import Meta, Profile, ops_table
from traces.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

FIRST_REPEATS = 3
MOST_REPEATS = 20
ROUND_SHARE_S = 0.01
"""Seconds that one shape may take in a later round: short ops are repeated more often."""
CEILING_REPEATS = 5
CEILING_PRODUCT = 1024
Progress = Callable[[float, str], None]
"""Told the share of the work done (0 to 1) and what is being measured."""


@dataclass
class Samples:
    """Times of one shape."""

    seconds: list[float] = field(default_factory=list)

    @property
    def median_s(self) -> float:
        """The median time."""
        return float(np.median(self.seconds))

    @property
    def spread_s(self) -> float:
        """Half the range of the middle half of the times; NaN for a single time."""
        if len(self.seconds) < 2:
            return float("nan")
        low, high = np.quantile(self.seconds, (0.25, 0.75))
        return float(high - low) / 2


def measure(
    kernels: Kernels,
    model: Model,
    device: Device,
    shapes: Sequence[OpShape],
    *,
    budget_s: float,
    progress: Progress,
) -> Profile:
    """Time ``shapes`` for about ``budget_s`` seconds and return a linted profile.

    The first round begins with the shortest ops; shapes that the time did not suffice for are counted in
    ``meta["refused"]``. Every other round goes through all shapes in another order, so that a machine that slows
    down for a while spoils a sample of many shapes and not the median of a few.

    Parameters
    ----------
    device
        The preset that the machine is an instance of. For a CPU its figures are defaults, and the rates found
        here replace them (``meta["ceilings"]``).

    Raises
    ------
    InputError
        If there is no budget, or most rows beat the datasheet of ``device``.
    """
    if not budget_s > 0:
        raise InputError(f"{budget_s} seconds", where="--budget", expected="more than 0")
    start = time.perf_counter()
    before = kernels.machine()
    measured = _ceilings(kernels, before)
    samples = _rounds(kernels, shapes, start + budget_s, budget_s, progress)
    table = _table(samples, model.dtype)
    roofline = _roofline(device, before, measured, table)
    kept, refused = lint(table, roofline)
    if sum(refused.values()) > kept.num_rows:
        what = f"{before.device_name} is faster than a {device.title} can be"
        raise InputError(what, where="--device", expected="the device that is measured")
    meta = Meta(
        device=device.name,
        device_name=before.device_name,
        model=model.name,
        dtype=model.dtype,
        driver=before.driver,
        clocks=_clocks(before, kernels.machine()),
        versions=before.versions,
        timed_by=f"single kernels, weights and KV not in cache, {before.threads} thread(s), median of rounds",
        source="measured here",
        rows=kept.num_rows,
        refused=refused | _unmeasured(shapes, samples),
        ceilings={**asdict(roofline), "memory_bytes": before.memory_bytes, **measured},
    )
    return Profile(asdict(meta), kept)


def _clocks(before: Machine, after: Machine) -> str:
    return before.clocks if before.clocks == after.clocks else f"{before.clocks} before, {after.clocks} after"


def _ceilings(kernels: Kernels, machine: Machine) -> dict[str, float]:
    """Return the best rates of a copy and a read through memory, and of a large square product."""
    size_bytes = machine.cache_bytes
    moves = {name: _fastest_s(kernels, OpShape(op=name, kind=name, size_bytes=size_bytes)) for name in ("copy", "read")}
    side = CEILING_PRODUCT * (1 if machine.is_cpu else 8)
    product = OpShape(op="gemm", kind="square", m=side, n=side, k=side)
    return {
        "measured_copy_bytes_per_s": 2 * size_bytes / moves["copy"],
        "measured_read_bytes_per_s": size_bytes / moves["read"],
        "measured_product_flops": product.flops / _fastest_s(kernels, product),
    }


def _fastest_s(kernels: Kernels, shape: OpShape) -> float:
    return min(kernels.seconds(kernels.prepare(shape), CEILING_REPEATS))


def _rounds(
    kernels: Kernels, shapes: Sequence[OpShape], end: float, budget_s: float, progress: Progress
) -> dict[OpShape, Samples]:
    samples: dict[OpShape, Samples] = {}
    rng = np.random.default_rng(0)
    order = sorted(shapes, key=lambda shape: (shape.flops, shape.size_bytes))
    while True:
        for shape in order:
            _sample(kernels, shape, samples)
            left = end - time.perf_counter()
            progress(min(1.0, 1 - left / budget_s), f"{shape.op} {shape.kind}")
            if left <= 0:
                return samples
        order = [shapes[index] for index in rng.permutation(len(shapes))]


def _sample(kernels: Kernels, shape: OpShape, samples: dict[OpShape, Samples]) -> None:
    run = kernels.prepare(shape)
    kernels.seconds(run, 1)
    known = samples.setdefault(shape, Samples())
    repeats = FIRST_REPEATS
    if known.seconds:
        repeats = max(1, min(MOST_REPEATS, int(ROUND_SHARE_S / max(known.median_s, 1e-9))))
    known.seconds.extend(kernels.seconds(run, repeats))


def _table(samples: Mapping[OpShape, Samples], dtype: str) -> pa.Table:
    rows = [asdict(shape) for shape in samples]
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    return ops_table(
        len(rows),
        dtype=dtype,
        time_s=[each.median_s for each in samples.values()],
        spread_s=[each.spread_s for each in samples.values()],
        count=[len(each.seconds) for each in samples.values()],
        **columns,
    )


def _roofline(device: Device, machine: Machine, measured: Mapping[str, float], table: pa.Table) -> Roofline:
    """Return the device's roofline; that of a CPU is the best rate that was seen here."""
    roofline = Roofline.of(device)
    if not machine.is_cpu:
        return roofline
    roofline = replace(roofline, l2_bytes=machine.cache_bytes)
    flops_per_s, bytes_per_s = reached(table, roofline)
    copies = (measured["measured_copy_bytes_per_s"], measured["measured_read_bytes_per_s"])
    return replace(
        roofline,
        peak_flops=max(measured["measured_product_flops"], flops_per_s),
        memory_bandwidth_bytes_per_s=max(*copies, bytes_per_s),
    )


def _unmeasured(shapes: Sequence[OpShape], samples: Mapping[OpShape, Samples]) -> dict[str, int]:
    left = Counter(shape.op for shape in shapes if shape not in samples)
    return {f"{op}: the budget ended before": count for op, count in sorted(left.items())}
