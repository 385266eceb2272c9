"""Fitting: known physics is found again, errors are those of rows not seen, and the same rows give the same bytes."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from profiler import gemm
from profiler.bands import Bands
from profiler.device import load_device
from profiler.engine_fit import EngineFit
from profiler.fit import fit, rows_of, trusted
from profiler.fitted import FittedDevice
from profiler.importers import import_tables
from profiler.op import GEMM, OPS
from profiler.profile import Profile, ops_table
from profiler.transfer import load_shipped, shipped_names
from traces.errors import InputError

DEVICE = load_device("a100-sxm")
TRUTH = dict(zip(gemm.NAMES, (5e-6, 3e-7, 0.9, 0.8, 0.6, 0.4, 0.8, 0.8, 0.5, 2.5), strict=True))


def made_profile(noise: float = 0.01, refused: dict[str, int] | None = None) -> Profile:
    """Made GEMMs of 25 shapes, from known coefficients."""
    sizes = [float(each) for each in (1024, 2048, 4096, 5120, 8192)]
    tokens = [float(each) for each in (1, 8, 32, 64, 128, 192, 256, 384, 512, 1024, 2048)]
    m, n, k = (grid.ravel() for grid in np.meshgrid(tokens, sizes, sizes))
    shape = {"m": m, "n": n, "k": k, "element_bytes": np.full(len(m), 2.0)}
    time_s = gemm.physics(TRUTH, shape, DEVICE)
    time_s = time_s * np.exp(np.random.default_rng(0).normal(0, noise, len(m)))
    table = ops_table(len(m), op="gemm", dtype="bfloat16", m=m, n=n, k=k, time_s=time_s)
    return Profile({"refused": refused or {}}, table)


def test_known_physics_is_found_again() -> None:
    fitted = fit(made_profile(), DEVICE).ops["gemm"]
    assert fitted.errors["unseen shapes"]["median"] < 0.02
    assert fitted.errors["unseen shapes"]["p90"] < 0.06
    unseen = {"m": 100.0, "n": 6144.0, "k": 4096.0, "element_bytes": 2.0}
    shape = {key: np.asarray([value]) for key, value in unseen.items()}
    assert fitted.predict(shape, DEVICE) == pytest.approx(gemm.physics(TRUTH, shape, DEVICE), rel=0.04)


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("first", "second"):
        fit(made_profile(), DEVICE).save(tmp_path / name)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
    again = FittedDevice.load(tmp_path / "first")
    shape, _ = rows_of(made_profile().table, GEMM)
    before = fit(made_profile(), DEVICE).ops["gemm"].predict(shape, DEVICE)
    assert again.ops["gemm"].predict(shape, DEVICE) == pytest.approx(before, rel=2e-3)


def test_bands_cover_what_they_say() -> None:
    """A tenth of the held-out rows lies outside the band of 90 %."""
    fitted = fit(made_profile(noise=0.05), DEVICE).ops["gemm"]
    assert fitted.band(0.5, 1e-4) < fitted.band(0.9, 1e-4) < fitted.band(0.99, 1e-4)
    assert 0.05 < fitted.band(0.9, 1e-4) < 0.2


def test_rows_of_equal_shape_count_once() -> None:
    table = made_profile().table
    shape, time_s = rows_of(pa.concat_tables([table, table, table]), GEMM)
    once_shape, once = rows_of(table, GEMM)
    assert np.array_equal(shape["m"], once_shape["m"])
    assert np.array_equal(time_s, once)


def test_the_fastest_all_reduce_counts() -> None:
    sizes = np.repeat(2.0 ** np.arange(10, 20), 2)
    time_s = np.tile([1e-5, 4e-5], 10)
    table = ops_table(20, op="all_reduce", dtype="bfloat16", gpus=2, size_bytes=sizes, time_s=time_s)
    _, times = rows_of(table, OPS["all_reduce"])
    assert times == pytest.approx(np.full(10, 1e-5))


def test_too_few_rows() -> None:
    with pytest.raises(InputError, match="too few rows"):
        fit(Profile({"refused": {}}, made_profile().table.slice(0, 5)), DEVICE)


def test_an_op_of_which_most_rows_are_impossible_is_not_trusted() -> None:
    rows = made_profile().table.num_rows
    assert trusted(made_profile(refused={"gemm: faster than memory": rows}), "gemm")
    assert not trusted(made_profile(refused={"gemm: faster than memory": rows + 1}), "gemm")
    assert trusted(made_profile(refused={"gemm: same shape as another row": 10 * rows}), "gemm")


def test_a_fitted_file_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "fitted.json"
    path.write_text('{"schema_version": 99}')
    with pytest.raises(InputError, match="schema_version is 99"):
        FittedDevice.load(path)
    path.write_text('{"schema_version": 3, "device": "a100-sxm"}')
    with pytest.raises(InputError, match="not a fitted device"):
        FittedDevice.load(path)


@pytest.mark.parametrize("name", ["a100-sxm", "a6000", "h100"])
def test_shipped_files_say_where_they_come_from(name: str) -> None:
    assert name in shipped_names()
    fitted = load_shipped(name)
    assert fitted.device == name
    for measurement in fitted.origin["measurements"]:
        assert {"source", "rows", "refused", "ops"} <= measurement.keys()
        assert "commit" in measurement["source"]
    assert {"numpy", "scipy", "scikit-learn"} <= fitted.origin["fitted_with"].keys()
    assert fitted.ops["gemm"].errors["unseen shapes"]["median"] < 0.08


@pytest.mark.parametrize(("op", "median"), [("gemm", 0.05), ("prefill_attention", 0.06), ("decode_attention", 0.08)])
def test_shipped_coefficients_predict_the_tables(data: Path, op: str, median: float) -> None:
    """Physics and residual together, on the rows of the table as it is imported today."""
    profile = import_tables(data / "profiles/aiconfigurator/a100_sxm", "a100-sxm")
    shape, time_s = rows_of(profile.table, OPS[op])
    share = np.abs(load_shipped("a100-sxm").ops[op].predict(shape, DEVICE) / time_s - 1)
    assert np.median(share) < median


def test_a_table_of_a_real_engine(data: Path) -> None:
    """RTX 4090 under vLLM 0.19: GEMMs at unseen token counts, and attention."""
    tables = data / "profiles/llmservingsim/RTX4090"
    fitted = fit(import_tables(tables, "rtx-4090"), load_device("rtx-4090"))
    assert fitted.ops["gemm"].errors["profiled shapes"]["median"] < 0.01
    assert fitted.ops["decode_attention"].errors["unseen rows"]["median"] < 0.1
    assert json.loads(json.dumps(fitted.to_json()))["device"] == "rtx-4090"


def test_json_keeps_every_field() -> None:
    fitted = load_shipped("h100")
    full = replace(fitted, overhead_s=1.2345e-4, engine=EngineFit(iteration_s=1e-3, bands=Bands((), {0.9: (0.1,)})))
    default = FittedDevice(device="", origin={}, ops={})
    for name in (each.name for each in fields(FittedDevice)):
        assert getattr(full, name) != getattr(default, name), f"{name} is its default: the trip would not show its loss"
    again = FittedDevice.from_json(json.loads(json.dumps(full.to_json())), where="memory")
    assert again.to_json() == full.to_json()
    for name in ("device", "origin", "borrowed", "overhead_s", "engine"):
        assert getattr(again, name) == getattr(full, name)
