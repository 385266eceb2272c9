"""The timing loop, on kernels that take as long as they are told to."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from profiler.device import load_device
from profiler.grid import Grid, design
from profiler.kernels import Machine, OpShape
from profiler.measure import FIRST_REPEATS, Measurement
from profiler.model import load_model
from profiler.profile import Profile
from profiler.profile_check import device_of
from traces.errors import InputError

MODEL = load_model("llama-60m")
SHAPES = design(MODEL, Grid(tokens=65, sequences=2, context=64, edge=64, kv_tokens=128))
MACHINE = Machine(device_name="a test", is_cpu=True, threads=1, cache_bytes=2**20, memory_bytes=2**30)


@dataclass
class FakeKernels:
    """A device of 1 TFLOP/s and 10 GB/s; every third call is ten times too slow."""

    details: Machine = MACHINE
    seconds_of: Callable[[OpShape], float] = lambda shape: 1e-6 + shape.flops / 1e12 + shape.size_bytes / 1e10
    prepared: list[OpShape] = field(default_factory=list)
    calls: int = 0
    fused: bool = True

    def machine(self) -> Machine:
        return self.details

    def prepare(self, shape: OpShape) -> Callable[[], object]:
        self.prepared.append(shape)
        return lambda: shape

    def seconds(self, run: Callable[[], object], repeats: int) -> Sequence[float]:
        shape = run()
        assert isinstance(shape, OpShape)
        times = []
        for _ in range(repeats):
            self.calls += 1
            times.append(self.seconds_of(shape) * (10 if self.calls % 3 == 0 else 1))
        return times


def measured(kernels: FakeKernels, budget_s: float = 0.5, device: str = "cpu") -> tuple[Profile, list[float]]:
    shares: list[float] = []
    measurement = Measurement(kernels, MODEL, load_device(device))
    measurement.rounds(kernels, SHAPES, budget_s=budget_s, progress=lambda share, _: shares.append(share))
    return measurement.profile(), shares


def test_every_shape_has_the_median_of_its_times() -> None:
    kernels = FakeKernels()
    profile, shares = measured(kernels)
    assert profile.table.num_rows == len(SHAPES)
    by_shape = {(row["op"], row["kind"], row["m"], row["n"], row["k"]): row for row in profile.table.to_pylist()}
    for shape in SHAPES:
        row = by_shape[shape.op, shape.kind, shape.m, shape.n, shape.k]
        assert row["count"] >= FIRST_REPEATS
        if "attention" not in shape.op:
            assert row["time_s"] == pytest.approx(kernels.seconds_of(shape))
    assert shares[-1] == 1.0
    assert all(0 <= share <= 1 for share in shares)


def test_rounds_go_on_until_the_time_is_up_in_another_order_each() -> None:
    kernels = FakeKernels()
    measured(kernels)
    rounds = kernels.prepared[3:]
    assert len(rounds) > 3 * len(SHAPES)
    first, second, third = (rounds[i * len(SHAPES) : (i + 1) * len(SHAPES)] for i in range(3))
    assert set(first) == set(second) == set(third) == set(SHAPES)
    assert second != third
    assert [shape.flops for shape in first] == sorted(shape.flops for shape in SHAPES)


def test_what_the_budget_did_not_suffice_for_is_counted() -> None:
    profile, _ = measured(FakeKernels(), budget_s=1e-9)
    left = Counter({reason.split(":")[0]: count for reason, count in profile.meta["refused"].items()})
    done = Counter(profile.table["op"].to_pylist())
    assert sum(done.values()) == 1
    assert done + left == Counter(shape.op for shape in SHAPES)
    assert all(reason.endswith(": the budget ended before") for reason in profile.meta["refused"])


@pytest.mark.parametrize("budget_s", [0.0, -1.0, math.nan])
def test_no_budget_is_no_measurement(budget_s: float) -> None:
    with pytest.raises(InputError, match=r"--budget: .* seconds; expected more than 0"):
        measured(FakeKernels(), budget_s=budget_s)


def test_the_ceilings_of_a_cpu_are_the_best_rates_seen_and_no_row_beats_them() -> None:
    profile, _ = measured(FakeKernels())
    assert profile.meta["refused"] == {}
    ceilings = profile.meta["ceilings"]
    assert ceilings["measured_copy_bytes_per_s"] == pytest.approx(2e10, rel=0.02)
    assert ceilings["measured_read_bytes_per_s"] == pytest.approx(1e10, rel=0.02)
    assert ceilings["peak_flops"] == pytest.approx(1e12, rel=0.02)
    device = device_of(profile)
    assert (device.name, device.peak_flops, device.l2_bytes) == ("cpu", ceilings["peak_flops"], 2**20)
    assert device.memory_bytes == MACHINE.memory_bytes


def test_rows_of_a_gpu_that_beat_its_datasheet_are_refused() -> None:
    kernels = FakeKernels(details=replace(MACHINE, is_cpu=False), seconds_of=lambda shape: 1e-5)
    profile, _ = measured(kernels, device="a6000")
    assert 4 * 32000 * 512 / 768e9 > 1e-5, "the head's weights alone take longer"
    assert profile.meta["refused"] == {"gemm: faster than memory": 2}
    assert profile.table.num_rows == len(SHAPES) - 2
    assert profile.meta["ceilings"]["peak_flops"] == load_device("a6000").peak_flops


def test_a_machine_that_cannot_be_the_device_it_is_said_to_be_is_refused() -> None:
    kernels = FakeKernels(details=replace(MACHINE, is_cpu=False), seconds_of=lambda shape: 1e-15)
    with pytest.raises(InputError, match=r"--device: a test is faster than a NVIDIA RTX A6000 48 GB can be"):
        measured(kernels, device="a6000", budget_s=0.05)


def test_a_profile_says_what_it_was_measured_on_and_how() -> None:
    details = replace(MACHINE, driver="555.1", clocks="1980 MHz", versions={"torch": "2.13"})
    profile, _ = measured(FakeKernels(details=details), budget_s=1e-9)
    meta = profile.meta
    assert (meta["device"], meta["device_name"], meta["model"]) == ("cpu", "a test", "llama-60m")
    assert (meta["driver"], meta["clocks"], meta["versions"]) == ("555.1", "1980 MHz", {"torch": "2.13"})
    assert (meta["dtype"], meta["source"]) == ("float32", "measured here")
    assert "1 thread" in meta["timed_by"]


def test_clocks_that_changed_are_told_as_both() -> None:
    kernels = FakeKernels()
    clocks = iter(("3000 MHz", "1200 MHz"))
    kernels.machine = lambda: replace(MACHINE, clocks=next(clocks))  # type: ignore[method-assign]
    profile, _ = measured(kernels, budget_s=1e-9)
    assert profile.meta["clocks"] == "3000 MHz before, 1200 MHz after"


def test_spread_is_half_the_range_of_the_middle_half() -> None:
    kernels = FakeKernels(seconds_of=lambda shape: 1e-3)
    profile, _ = measured(kernels, budget_s=1e-9)
    (row,) = profile.table.to_pylist()
    assert row["count"] == FIRST_REPEATS
    assert row["spread_s"] == pytest.approx(np.diff(np.quantile([1e-3, 1e-3, 1e-2], (0.25, 0.75)))[0] / 2)
