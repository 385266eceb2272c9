"""The kernels of matrix products: what bounds them, what a fit finds again, and what few rows tell of a device."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler import gemm, gemm_kernel
from profiler.design import farthest
from profiler.device import load_device
from profiler.fit import fit_rows
from profiler.fitted import FittedOp
from profiler.op import GEMM
from profiler.tile import Floats
from profiler.transfer import adapt

A100, A6000 = load_device("a100-sxm"), load_device("a6000")
EXPECTED = {name: prior.value for name, prior in gemm_kernel.PRIORS.items()}
SIZES = st.integers(1, 2**15).map(float)


def products(*rows: tuple[float, float, float]) -> dict[str, Floats]:
    m, n, k = np.asarray(rows, dtype=np.float64).T
    return {"m": m, "n": n, "k": k, "element_bytes": np.full(len(m), 2.0)}


def table() -> dict[str, Floats]:
    sizes = (512.0, 1024.0, 2048.0, 4096.0, 8192.0, 12288.0)
    tokens = (1.0, 8.0, 32.0, 64.0, 128.0, 192.0, 256.0, 384.0, 512.0, 1024.0, 2048.0, 4096.0)
    return products(*((m, n, k) for m in tokens for n in sizes for k in sizes))


@given(SIZES, SIZES, SIZES)
@settings(max_examples=100, deadline=None)
def test_no_product_beats_the_device(m: float, n: float, k: float) -> None:
    best = {**EXPECTED, **{name: 1.0 for name in EXPECTED if name.endswith("efficiency")}}
    seconds = float(gemm_kernel.seconds(best, products((m, n, k)), A100)[0])
    assert seconds > best["kernel_launch_s"]
    assert seconds > 2 * m * n * k / A100.peak_flops
    assert seconds > 2 * (n * k + m * k + m * n) / A100.memory_bandwidth_bytes_per_s


@given(st.lists(st.tuples(SIZES, SIZES, SIZES), min_size=2, max_size=20))
@settings(max_examples=30, deadline=None)
def test_a_product_costs_the_same_alone_and_among_others(rows: list[tuple[float, float, float]]) -> None:
    together = gemm_kernel.seconds(EXPECTED, products(*rows), A100)
    alone = [float(gemm_kernel.seconds(EXPECTED, products(row), A100)[0]) for row in rows]
    assert together == pytest.approx(alone)


def test_more_rows_than_are_computed_at_once() -> None:
    shape = products(*((float(m), 4096.0, 4096.0) for m in range(1, gemm_kernel.ROWS_AT_ONCE + 100)))
    seconds, choice = gemm_kernel.seconds(EXPECTED, shape, A100), gemm_kernel.choice(EXPECTED, shape, A100)
    assert len(seconds) == len(choice) == len(shape["m"])
    assert 2.0 ** choice[:, -1] == pytest.approx(seconds)


def test_what_is_chosen() -> None:
    few, many = gemm_kernel.choice(EXPECTED, products((1.0, 512.0, 16384.0), (8192.0, 8192.0, 8192.0)), A100)
    assert few[3] > 0, "one row of a narrow and deep product: k is split"
    assert many[3] == 0, "enough tiles for all multiprocessors: it is not"
    assert many[2] > few[2], "and its tiles are larger"


def test_a_fit_finds_kernels_again_and_physics_alone_forgets_them() -> None:
    truth = {**EXPECTED, "kernel_launch_s": 4e-6, "large_efficiency": 0.95, "weight_efficiency": 0.7, "stiffness": 0.9}
    shape = table()
    time_s = gemm_kernel.seconds(truth, shape, A100) * np.exp(np.random.default_rng(0).normal(0, 0.01, len(shape["m"])))
    fitted = fit_rows(GEMM, shape, time_s, A100, with_residual=False)
    unseen = products((100.0, 6144.0, 4096.0), (700.0, 3072.0, 9216.0), (3.0, 11008.0, 4096.0))
    assert fitted.predict(unseen, A100) == pytest.approx(gemm_kernel.seconds(truth, unseen, A100), rel=0.05)
    bare = fitted.physics_only()
    assert set(bare.coefficients) == set(gemm.NAMES)
    assert bare.predict(unseen, A6000) == pytest.approx(gemm.transferable(fitted.coefficients, unseen, A6000))


def test_few_rows_of_another_device_tell_most_of_it() -> None:
    truth = {**EXPECTED, "kernel_launch_s": 6e-6, "weight_efficiency": 0.95, "middle_efficiency": 0.65}
    start = FittedOp(name="gemm", coefficients=dict(zip(gemm.NAMES, gemm.START, strict=True)))
    shape = table()
    time_s = gemm_kernel.seconds(truth, shape, A6000)
    few = farthest(GEMM, shape, A6000, 10)
    there = adapt(start, GEMM, {key: values[few] for key, values in shape.items()}, time_s[few], A6000)
    before, after = (np.abs(each.predict(shape, A6000) / time_s - 1) for each in (start, there))
    assert np.median(after) < 0.05 < np.median(before)


def test_another_width_of_elements() -> None:
    shape = products((1.0, 8192.0, 8192.0))
    wide = {**shape, "element_bytes": np.asarray([4.0])}
    narrow_s, wide_s = (
        gemm_kernel.seconds(EXPECTED, each, replace(A100, peak_flops=1e15))[0] for each in (shape, wide)
    )
    assert wide_s > 1.7 * narrow_s
