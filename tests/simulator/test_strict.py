"""Batches that nobody measured: marked in the record, said in the table and the report, refused with --strict."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from policies import choose
from profiler.cost_model import CostModel
from profiler.deployment import Deployment
from profiler.measured_range import MeasuredRange
from profiler.transfer import load_fitted
from simulator.cluster import Cluster
from simulator.provenance import sureness
from simulator.session import Request, compare
from simulator.simulation import Scenario, simulate
from traces.errors import InputError
from traces.run_record import read_run
from traces.workload import Workload

LONGEST = 300


@pytest.fixture
def scenario(random_workload: Callable[..., Workload], paper_scenario: Callable[..., Scenario]) -> Scenario:
    """On a profile whose decodes reach contexts of :data:`LONGEST` tokens."""
    deployment = Deployment(model="llama-3.1-8b", device="a100-sxm")
    fitted = load_fitted(deployment.hardware)
    op = fitted.ops["decode_attention"]
    assert op.measured is not None
    limits = {**op.measured.limits, "decode_context": (1.0, float(LONGEST))}
    short = replace(op, measured=MeasuredRange(limits))
    cost_model = CostModel(deployment, replace(fitted, ops={**fitted.ops, "decode_attention": short}))
    plain = paper_scenario(random_workload(60))
    return replace(plain, cluster=Cluster.single(deployment, cost_model, plain.cluster.groups[0].memory))


def test_iterations_outside_are_marked_and_their_share_is_said(scenario: Scenario, tmp_path: Path) -> None:
    simulate(scenario, choose("vllm"), tmp_path / "run")
    run = read_run(tmp_path / "run")
    known = (run.meta.groups[0].cost_model or {})["profiled_range"]
    beyond = run.iterations.decode_context_max > LONGEST
    assert 0 < beyond.sum() < len(beyond)
    np.testing.assert_array_equal(run.iterations.outside > 0, beyond)
    assert {known["limits"][code - 1]["quantity"] for code in run.iterations.outside[beyond]} == {"decode_context"}
    assert known["iterations_share"] == pytest.approx(beyond.mean())
    assert known["time_share"] == pytest.approx(run.iterations.busy_s[beyond].sum() / run.iterations.busy_s.sum())
    (band, sure), (text, caution) = sureness({"vllm": run})
    assert "90 % band of an iteration's time" in band
    assert not sure
    farthest = run.iterations.decode_context_max.max()
    assert f"outside the profiled range: decode attention: decode context {farthest}, beyond the 300 measured" in text
    assert caution


def test_strict_refuses_the_first_and_writes_nothing(scenario: Scenario, tmp_path: Path) -> None:
    simulate(scenario, choose("vllm"), tmp_path / "run")
    first = int(np.flatnonzero(read_run(tmp_path / "run").iterations.outside)[0]) + 1
    with pytest.raises(InputError, match=f"--strict: iteration {first} under vllm: .* beyond the 300 measured"):
        simulate(replace(scenario, strict=True), choose("vllm"), tmp_path / "strict")
    assert not (tmp_path / "strict").exists()


def test_the_interval_of_a_run_is_that_of_its_iterations(scenario: Scenario, tmp_path: Path) -> None:
    simulate(scenario, choose("vllm"), tmp_path / "run")
    band = (read_run(tmp_path / "run").meta.groups[0].cost_model or {})["interval"]
    assert band["low"] < 1 < band["high"]
    assert 64 <= band["iterations"] <= 128


def asked(output: Path, **changes: object) -> Request:
    given = {"workload": "chat", "policies": "vllm", "model": "mistral-7b", "device": "a100-sxm", "num_prompts": 20}
    return Request(output=output, **{"strict": True, "request_rate": 3.0, **given, **changes})  # type: ignore[arg-type]


def test_a_transfer_is_no_profile(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--strict: gemm was not measured on h200: its times are taken over from h100"):
        compare(asked(tmp_path / "out", device="h200"))
    assert not (tmp_path / "out").exists()


def test_chunks_after_others_were_not_measured_on_every_device(tmp_path: Path) -> None:
    compare(asked(tmp_path / "whole"), as_json=True)
    (group,) = json.loads((tmp_path / "whole" / "vllm" / "run.json").read_text())["groups"]
    assert group["cost_model"]["profiled_range"]["iterations_share"] == 0
    with pytest.raises(InputError, match="under sarathi-serve: prefill attention: past tokens of a chunk"):
        compare(asked(tmp_path / "chunks", policies="vllm,sarathi-serve"))
    compare(asked(tmp_path / "chunks", policies="sarathi-serve", strict=False), as_json=True)
    page = (tmp_path / "chunks" / "report.html").read_text()
    assert "outside the profiled range: prefill attention: past tokens of a chunk" in page
