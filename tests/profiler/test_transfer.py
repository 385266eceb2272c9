"""Devices nobody measured, and profiles of one's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from profiler.aggregates import Aggregates
from profiler.cost_model import load_cost_model
from profiler.deployment import Deployment
from profiler.device import device_names, load_device
from profiler.importers import import_tables
from profiler.op import OPS
from profiler.profile import write_profile
from profiler.refit import cache_folder, fit_cached
from profiler.transfer import KIND, by_distance, load_fitted
from traces.errors import InputError


@pytest.mark.parametrize("name", device_names())
def test_every_op_of_every_device_has_a_source(name: str) -> None:
    fitted = load_fitted(load_device(name))
    assert fitted.ops.keys() == OPS.keys()
    for op, known in fitted.ops.items():
        taken_over = op in fitted.borrowed or fitted.device != name
        assert (KIND in known.errors) == taken_over
        assert not (taken_over and (known.residual or known.curves))


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("a100-pcie", "a100-sxm"), ("a40", "a6000"), ("h200", "h100"), ("rtx-4090", "h100"), ("a6000", "a6000")],
)
def test_nearest(name: str, nearest: str) -> None:
    assert by_distance(load_device(name))[0] == nearest


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
    assert again.iteration_time(batch) == pytest.approx(own.iteration_time(batch), rel=2e-3)
    assert own.iteration_time(batch) != load_cost_model(deployment).iteration_time(batch)
    with pytest.raises(InputError, match="measures 'rtx-4090'"):
        fit_cached(tmp_path / "profile", load_device("h100"))
