"""The fit of an engine: known factors and costs are found again, and a cost model goes by them."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from profiler.bands import Bands
from profiler.cost_model import CostModel, load_cost_model
from profiler.deployment import Deployment
from profiler.device import load_device
from profiler.engine_fit import GROUPS, EngineFit, fit_engine
from profiler.fitted import FittedDevice
from profiler.grid import gpu_grid
from profiler.iteration import DesignedBatch, design_iterations
from profiler.kernels import OpShape
from profiler.model import load_model
from profiler.profile import Meta, Profile, ops_table, write_profile
from profiler.transfer import load_shipped
from traces.errors import InputError

ENGINE = EngineFit(
    factors=dict(zip(GROUPS, (1.1, 0.8, 1.3, 0.9, 1.2), strict=True)),
    iteration_s=2e-3,
    chunk_s=1e-4,
    decode_s=2e-5,
    token_s=1e-6,
    layers=32,
    bands=Bands((), {0.5: (0.01,), 0.9: (0.05,)}),
)
MODEL = load_model("llama-3.1-8b")
A100 = load_device("a100-sxm")
SHAPES = design_iterations(MODEL, gpu_grid(MODEL, A100.memory_bytes))
PLACED = Deployment(model="llama-3.1-8b", device="a100-sxm")


def with_engine(engine: EngineFit, deployment: Deployment = PLACED) -> CostModel:
    return CostModel(deployment, replace(load_shipped("a100-sxm"), engine=engine))


def measured(noise: float = 0.0) -> tuple[list[dict[str, float]], list[DesignedBatch], Any]:
    """What ops alone say, the batches, and what :data:`ENGINE` makes of them."""
    batches = [DesignedBatch(shape) for shape in SHAPES]
    alone, engine = with_engine(EngineFit(layers=32, bands=ENGINE.bands)), with_engine(ENGINE)
    time_s = np.asarray([engine.iteration_time(batch) for batch in batches])
    time_s = time_s * np.exp(noise * np.random.default_rng(0).standard_normal(len(batches)))
    return [alone.op_times(batch) for batch in batches], batches, time_s


def test_a_cost_model_scales_ops_and_adds_the_engines_own_costs() -> None:
    alone, engine = with_engine(EngineFit(layers=32, bands=ENGINE.bands)), with_engine(ENGINE)
    for shape in SHAPES:
        batch = DesignedBatch(shape)
        parts = alone.op_times(batch)
        own_s = ENGINE.iteration_s + ENGINE.chunk_s * len(batch.chunks) + ENGINE.decode_s * batch.decodes
        expected = sum(ENGINE.factors[group] * parts[group] for group in GROUPS) + own_s + ENGINE.token_s * shape.m
        assert engine.iteration_time(batch) == pytest.approx(expected)
        assert sum(engine.breakdown(batch).values()) == pytest.approx(expected)
        low, high = engine.interval(batch, 0.9)
        assert (low, high) == pytest.approx((expected * np.exp(-0.05), expected * np.exp(0.05)))


def test_factors_and_costs_are_found_again() -> None:
    parts, batches, time_s = measured()
    found = fit_engine(parts, batches, time_s, 32)
    for name in ("matrices", "decode attention"):
        assert found.factors[name] == pytest.approx(ENGINE.factors[name], rel=0.02)
    assert found.iteration_s == pytest.approx(ENGINE.iteration_s, rel=0.1)
    assert found.errors["median"] < 1e-3
    assert found.rows == len(SHAPES)


def test_errors_and_bands_are_those_of_iterations_that_were_not_seen() -> None:
    parts, batches, time_s = measured(noise=0.05)
    found = fit_engine(parts, batches, time_s, 32)
    assert 0.02 < found.errors["median"] < 0.06
    assert found.band(0.9, 1.0) == pytest.approx(1.64 * 0.05, rel=0.4)
    assert found.band(0.5, 1.0) < found.band(0.9, 1.0) < found.band(0.99, 1.0)
    costs = (found.iteration_s, found.chunk_s, found.decode_s, found.token_s, *found.factors.values())
    assert min(costs) >= 0


def test_bands_hold_single_iterations_though_the_fit_sees_medians() -> None:
    parts, batches, time_s = measured(noise=0.0)
    spread_s = 0.6745 * 0.08 * time_s
    found = fit_engine(parts, batches, time_s, 32, spread_s=spread_s)
    assert fit_engine(parts, batches, time_s, 32).band(0.8, 1.0) < 0.005
    assert found.band(0.9, 1.0) == pytest.approx(1.645 * 0.08, rel=0.1)


def test_held_out_errors_are_larger_than_those_of_what_was_seen() -> None:
    parts, batches, time_s = measured(noise=0.2)
    few = slice(None, None, len(time_s) // 18 or 1)
    found = fit_engine(parts[few], batches[few], time_s[few], 32)
    known = with_engine(found)
    seen = np.abs(
        [known.iteration_time(batch) / time - 1 for batch, time in zip(batches[few], time_s[few], strict=True)]
    )
    assert found.errors["median"] > np.median(seen)


def test_costs_beside_the_ops_go_by_layers() -> None:
    halves = with_engine(ENGINE, replace(PLACED, pipeline_parallel_size=2))
    batch = DesignedBatch(SHAPES[0])
    assert halves.breakdown(batch, 0)["overhead"] == pytest.approx(with_engine(ENGINE).breakdown(batch)["overhead"] / 2)


def profile_of(time_s: Any, **changes: Any) -> Profile:
    names = OpShape.__dataclass_fields__
    shapes = [*SHAPES, *gemms()]
    columns = {name: [getattr(shape, name) for shape in shapes] for name in names}
    table = ops_table(len(shapes), dtype="bfloat16", time_s=[*time_s, *(1e-3 for _ in gemms())], **columns)
    meta = {
        "device": "a100-sxm",
        "device_name": "a test",
        "dtype": "bfloat16",
        "model": MODEL.name,
        "timed_by": "a test",
    }
    return Profile(asdict(Meta(**{**meta, "source": "a test", "sizes": asdict(MODEL), **changes})), table)


def gemms() -> list[OpShape]:
    return [OpShape(op="gemm", kind="q_proj", m=m, n=4096, k=4096) for m in range(1, 17)]


def test_a_profile_with_iterations_gives_a_cost_model_that_meets_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    _, batches, time_s = measured()
    write_profile(tmp_path / "profile", profile_of(3 * time_s))
    for _ in range(2):
        model = load_cost_model(PLACED, profile=tmp_path / "profile")
        share = [model.iteration_time(batch) / (3 * each) for batch, each in zip(batches, time_s, strict=True)]
        assert np.median(np.abs(np.asarray(share) - 1)) < 0.05
    assert model.describe()["errors"]["iteration"]["unseen batches"]["rows"] == len(SHAPES)


def test_iterations_without_the_sizes_of_their_model_are_an_input_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_profile(tmp_path / "profile", profile_of(measured()[2], sizes={}))
    with pytest.raises(InputError, match=r"profile\.json, sizes"):
        load_cost_model(PLACED, profile=tmp_path / "profile")


def test_json_keeps_an_engine() -> None:
    full = replace(load_shipped("h100"), engine=ENGINE)
    again = FittedDevice.from_json(json.loads(json.dumps(full.to_json())), where="memory")
    assert again.engine == ENGINE
