"""Devices nobody measured, and profiles of one's own."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from profiler.__main__ import app
from profiler.aggregates import Aggregates
from profiler.cost_model import load_cost_model
from profiler.deployment import Deployment
from profiler.device import device_names, load_device
from profiler.fit import fit
from profiler.fitted import FittedDevice
from profiler.importers import import_tables
from profiler.op import MIXED_ATTENTION, OPS
from profiler.profile import Meta, Profile, ops_table, read_profile, write_profile
from profiler.profile_check import device_of
from profiler.refit import cache_folder, fit_cached
from profiler.transfer import KIND, by_distance, load_fitted
from traces.errors import InputError


@pytest.mark.parametrize("name", device_names())
def test_every_op_of_every_device_has_a_source(name: str) -> None:
    fitted = load_fitted(load_device(name))
    assert fitted.ops.keys() == OPS.keys() - {MIXED_ATTENTION.name}, (
        "no shipped device has measured one launch over both kinds"
    )
    for op, known in fitted.ops.items():
        taken_over = fitted.source_of(op) != name
        assert (KIND in known.errors) == taken_over
        assert not (taken_over and (known.residual or known.curves))


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("a100-pcie", "a100-sxm"), ("a40", "a6000"), ("h200", "h100"), ("rtx-4090", "h100"), ("a6000", "a6000")],
)
def test_nearest(name: str, nearest: str) -> None:
    assert by_distance(load_device(name))[0] == nearest


def test_attention_comes_from_ampere_where_kernels_are_not_hoppers() -> None:
    for name in ("rtx-4090", "rtx-pro-6000"):
        fitted = load_fitted(load_device(name))
        assert (fitted.source_of("gemm"), fitted.source_of("decode_attention")) == ("h100", "a100-sxm")
    assert load_fitted(load_device("h200")).source_of("decode_attention") == "h100"


def test_a_profile_of_ones_own(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_profile(tmp_path / "profile", import_tables(data / "profiles/llmservingsim/RTX4090", "rtx-4090"))
    deployment = Deployment(model="llama-3.1-8b", device="rtx-4090", max_num_batched_tokens=2048)
    own = load_cost_model(deployment, profile=tmp_path / "profile")
    assert not own.describe()["transferred"]
    assert {"all_reduce", "send"} <= own.describe()["borrowed"].keys()
    (remembered,) = cache_folder().iterdir()
    stamp = remembered.stat().st_mtime_ns
    again = load_cost_model(deployment, profile=tmp_path / "profile")
    assert remembered.stat().st_mtime_ns == stamp
    batch = Aggregates.of(512, decodes=16, context=700)
    assert again.iteration_time(batch) == own.iteration_time(batch)
    assert again.fitted.to_json() == own.fitted.to_json()
    assert own.iteration_time(batch) != load_cost_model(deployment).iteration_time(batch)
    with pytest.raises(InputError, match="measures 'rtx-4090'"):
        fit_cached(tmp_path / "profile", load_device("h100"))


def cpu_profile(folder: Path, *, op: str = "gemm") -> None:
    """A CPU of 3 TFLOP/s and 60 GB/s, that overlaps nothing, with an overhead of a millisecond."""
    tokens, widths = [1.0, 4.0, 16.0, 64.0, 256.0, 1024.0], [512.0, 1024.0, 2048.0, 4096.0]
    m, n, k = (grid.ravel() for grid in np.meshgrid(tokens, widths, widths))
    time_s = 1e-5 + 2 * m * n * k / 3e12 + 2 * (n * k + m * n + m * k) / 60e9
    shape = {"m": m, "n": n, "k": k}
    if op == "elementwise":
        shape, time_s = {"size_bytes": 16 * m * n}, 1e-5 + 16 * m * n / 50e9
    made = ops_table(len(m), op=op, kind="act", dtype="bfloat16", time_s=time_s, **shape)
    overhead = ops_table(3, op="overhead", kind="engine", dtype="bfloat16", time_s=[1e-3] * 3)
    meta = Meta(
        device="cpu",
        device_name="made",
        model="llama-60m",
        dtype="bfloat16",
        driver="none",
        clocks="none",
        versions={},
        timed_by="arithmetic",
        source="made",
        rows=len(m) + 3,
        ceilings={"peak_flops": 3e12, "memory_bandwidth_bytes_per_s": 60e9, "l2_bytes": 1 << 20},
    )
    write_profile(folder, Profile(asdict(meta), pa.concat_tables([made, overhead])))


def test_a_cpu_is_taken_at_the_rates_its_profile_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    cpu_profile(tmp_path / "profile")
    deployment = Deployment(model="llama-60m", device="cpu")
    own = load_cost_model(deployment, profile=tmp_path / "profile")
    assert own.deployment.hardware.peak_flops == own.deployment.peak_flops == 3e12
    assert own.deployment.hardware.memory_bandwidth_bytes_per_s == 60e9
    assert deployment.hardware.peak_flops == load_device("cpu").peak_flops != 3e12
    gemm, measured = own.fitted.ops["gemm"], fit(read_profile(tmp_path / "profile"), own.deployment.hardware)
    assert gemm.coefficients == measured.through_json().ops["gemm"].coefficients
    assert own.describe()["overhead_s"] == own.breakdown(Aggregates.of(1))["overhead"] == 1e-3
    again = load_cost_model(deployment, profile=tmp_path / "profile")
    assert again.describe() == own.describe()
    assert again.iteration_time(Aggregates.of(100)) == own.iteration_time(Aggregates.of(100))


def test_fit_takes_a_cpu_at_its_measured_rates_too(tmp_path: Path) -> None:
    cpu_profile(tmp_path / "profile")
    made = CliRunner().invoke(app, ["fit", str(tmp_path / "profile"), "--output", str(tmp_path / "fit.json")])
    assert made.exit_code == 0, made.output
    read = read_profile(tmp_path / "profile")
    assert FittedDevice.load(tmp_path / "fit.json").ops["gemm"].coefficients == pytest.approx(
        fit(read, device_of(read)).through_json().ops["gemm"].coefficients
    )


def test_a_profile_without_matrix_products_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    cpu_profile(tmp_path / "profile", op="elementwise")
    with pytest.raises(InputError, match="too few rows of matrix products; expected at least 8 sound rows of gemm"):
        fit_cached(tmp_path / "profile", load_device("cpu"))
    assert not cache_folder().exists()


def test_what_another_version_left_in_the_cache_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    cpu_profile(tmp_path / "profile")
    fit_cached(tmp_path / "profile", load_device("cpu"))
    monkeypatch.setattr("profiler.refit.version", lambda name: "0.0")
    fit_cached(tmp_path / "profile", load_device("cpu"))
    assert len(list(cache_folder().iterdir())) == 2
