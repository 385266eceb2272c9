"""Calibration: known overheads are found again, nothing is changed that is right, and nothing is made worse."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from typer.testing import CliRunner

from policies import choose
from policies.batch import Batch
from policies.blocks import KVMemory
from profiler.__main__ import app
from profiler.bands import Bands
from profiler.calibration import Calibration, calibrate, engine_of, solve
from profiler.cost_model import CostModel, load_cost_model
from profiler.deployment import Deployment
from profiler.engine_fit import GROUPS, EngineFit
from profiler.profiled_range import ProfiledRange
from profiler.recorded_run import read_recorded
from simulator.cluster import Cluster
from simulator.simulation import Scenario, simulate
from tests.simulator.plain_times import PlainTimes
from traces.errors import InputError
from traces.files import read_json, write_json
from traces.workload import Workload

PLACED = Deployment(model="llama-3.1-8b", device="a100-sxm", max_model_len=4096, max_num_batched_tokens=512)
SHIPPED = load_cost_model(PLACED)
FACTORS = dict(zip(GROUPS, (1.15, 1.0, 0.9, 1.3, 1.0), strict=True))
TRUE = EngineFit(factors=FACTORS, iteration_s=1.5e-3, chunk_s=3e-4, decode_s=1e-5, token_s=1e-6, layers=32)
HARDLY = EngineFit(iteration_s=SHIPPED.describe()["overhead_s"], layers=32)


class Engine(PlainTimes):
    """Times of a cost model with an engine of its own and some noise, now and then far too long."""

    def __init__(self, engine: EngineFit, noise: float = 0.0, *, strays: float = 0.0, pace: float = 1.0) -> None:
        self._model = CostModel(PLACED, replace(SHIPPED.fitted, engine=engine)).at_pace(pace)
        self._noise, self._strays, self._rng = noise, strays, np.random.default_rng(3)

    def iteration_time(self, batch: Batch, stage: int = 0) -> float:
        stray = 20.0 if self._rng.random() < self._strays else 1.0
        return stray * self._model.iteration_time(batch, stage) * float(np.exp(self._noise * self._rng.normal()))

    def interval(self, batch: Batch, coverage: float = 0.9, stage: int = 0) -> tuple[float, float]:
        seconds = self._model.iteration_time(batch, stage)
        return seconds, seconds

    def profiled_range(self) -> ProfiledRange:
        return self._model.profiled_range()

    def describe(self) -> dict[str, Any]:
        return self._model.describe()


def record(folder: Path, engine: Any, requests: int = 40, policy: str = "vllm-v1", deployment: Any = PLACED) -> Path:
    rng = np.random.default_rng(0)
    workload = Workload(
        name="synthetic",
        arrival_s=np.sort(rng.uniform(0, 0.4 * requests, requests)),
        prompt_tokens=rng.integers(16, 2048, requests),
        output_tokens=rng.integers(4, 48, requests),
    )
    choice = choose(policy, **({"max_num_batched_tokens": 512} if policy == "vllm-v1" else {}))
    memory = KVMemory(blocks=4000, max_model_len=4096)
    scenario = Scenario(workload=workload, cluster=Cluster.single(deployment, engine, memory))
    simulate(scenario, choice, folder)
    return folder


def calibrated(folder: Path, engine: Any, **options: Any) -> Calibration:
    return calibrate(read_recorded(record(folder, engine, **options)), SHIPPED)


def test_known_overheads_are_found_again(tmp_path: Path) -> None:
    found = calibrated(tmp_path / "run", Engine(TRUE))
    assert found.tested[0].errors["median"] > 0.1
    assert found.tested[1].errors["p90"] < 0.01
    assert found.after.iteration_s == pytest.approx(1.5e-3, rel=0.35)
    assert found.after.factors["matrices"] == pytest.approx(1.15, abs=0.05)
    assert found.worse is None
    assert abs(found.tested[1].bias) < 0.003


@pytest.mark.parametrize("requests", [5, 40])
def test_noise_and_strays_do_not_carry_it_away(tmp_path: Path, requests: int) -> None:
    engine = Engine(TRUE, noise=0.05, strays=0.02)
    run = read_recorded(record(tmp_path / "run", engine, requests))
    found = calibrate(run, SHIPPED)
    assert len(run.time_s) > 80
    truth = Engine(TRUE)
    after = CostModel(PLACED, found.device)
    share = [after.iteration_time(batch) / truth.iteration_time(batch) for batch in run.batches]
    assert np.quantile(np.abs(np.asarray(share) - 1), 0.9) < 0.05
    assert max(found.after.factors.values()) < 2
    assert found.after.band(0.9, 1.0) > 0.05


def test_a_run_of_the_simulator_itself_changes_nothing(tmp_path: Path) -> None:
    found = calibrated(tmp_path / "run", SHIPPED)
    before, after = found.tested
    assert max(before.errors["p90"], after.errors["p90"]) < 1e-6
    assert found.after.iteration_s == pytest.approx(found.before.iteration_s, rel=1e-4)
    assert found.after.factors == pytest.approx(found.before.factors, abs=1e-4)
    assert found.worse is None


def test_what_a_run_does_not_tell_apart_stays_where_it_was() -> None:
    rng = np.random.default_rng(1)
    whole = rng.uniform(1e-3, 1e-2, 100)
    terms = np.zeros((100, 9))
    terms[:, 0] = terms[:, 4] = whole
    known = np.asarray([1.0, 1.0, 1.0, 1.0, 1.0, 0, 0, 0, 0])
    found = solve(terms, 3 * whole, 3 * whole, known)
    assert found[[0, 4]] == pytest.approx([1.5, 1.5], rel=0.02)
    assert found[[1, 2, 3]] == pytest.approx(1.0)
    shrunk = solve(terms, 0.1 * whole, 0.1 * whole, known)
    assert shrunk.min() >= 0
    assert shrunk[0] + shrunk[4] == pytest.approx(0.1, rel=0.1)


def test_an_engine_that_a_profile_found_is_where_a_calibration_starts() -> None:
    engine = replace(TRUE, bands=Bands((), {0.5: (0.01,), 0.9: (0.05,)}))
    assert engine_of(CostModel(PLACED, replace(SHIPPED.fitted, engine=engine))).factors == FACTORS
    assert engine_of(SHIPPED) == HARDLY


def command(*words: str | Path) -> Any:
    return CliRunner().invoke(app, ["calibrate", *map(str, words)])


def test_what_is_written_is_what_every_command_takes(tmp_path: Path) -> None:
    run, output = record(tmp_path / "run", Engine(TRUE, noise=0.02)), tmp_path / "calibrated.json"
    done = command("--run", run, "--output", output)
    assert done.exit_code == 0, done.output
    assert "tested on" in done.output
    assert "matrices, times" in done.output
    model = load_cost_model(PLACED, profile=output)
    batches = read_recorded(run).batches
    truth = Engine(TRUE)
    share = [model.iteration_time(batch) / truth.iteration_time(batch) for batch in batches]
    assert np.abs(np.asarray(share) - 1).max() < 0.05
    assert model.describe()["engine"]["rows"] > 0
    again = command("--run", run, "--output", tmp_path / "again.json", "--profile", output, "--json")
    facts = json.loads(again.output)
    assert facts["tested"]["before"]["errors"]["median"] == pytest.approx(0.015, abs=0.01)
    with pytest.raises(InputError, match=r"is of device 'a100-sxm'; expected one of 'h100'"):
        load_cost_model(replace(PLACED, device="h100"), profile=output)
    with pytest.raises(InputError, match=r"is of model 'llama-3.1-8b'; expected one of 'llama-2-7b'"):
        load_cost_model(replace(PLACED, model="llama-2-7b"), profile=output)


def test_a_calibration_that_makes_the_other_half_worse_is_not_written(tmp_path: Path) -> None:
    """Every other twentieth of this run is three times slower: what is learned from some is wrong for the others."""
    folder = record(tmp_path / "run", SHIPPED)
    path = folder / "iterations.parquet"
    table = parquet.read_table(path)
    rows = len(table)
    slow = np.where(np.arange(rows) * 20 // rows % 2 == 0, 3.0, 1.0)
    busy = [[factor * each[0]] for factor, each in zip(slow.tolist(), table["stage_time_s"].to_pylist(), strict=True)]
    position, field = table.schema.get_field_index("stage_time_s"), table.schema.field("stage_time_s")
    parquet.write_table(table.set_column(position, field, pa.array(busy, field.type)), path)
    output = tmp_path / "calibrated.json"
    done = command("--run", folder, "--output", output)
    assert isinstance(done.exception, InputError)
    assert "the half that was not fitted to" in str(done.exception)
    assert "after" in done.output
    assert not output.exists()
    assert command("--run", folder, "--output", output, "--force").exit_code == 0
    assert output.is_file()


def test_runs_that_cannot_calibrate_are_refused(tmp_path: Path) -> None:
    run = record(tmp_path / "run", SHIPPED, requests=6)
    (tmp_path / "requests").mkdir()
    (tmp_path / "requests/requests.jsonl").write_text("{}\n")
    with pytest.raises(InputError, match=r"requests: holds no run.json; expected a run record .* is not enough"):
        read_recorded(tmp_path / "requests")
    header = read_json(run / "run.json")
    (group,) = header["groups"]

    def changed(keys: dict[str, Any]) -> dict[str, Any]:
        return {"groups": [group | keys]}

    for changes, message in (
        ({"policy": {"name": "unheard-of"}}, "unknown policy 'unheard-of'"),
        (changed({"deployment": group["deployment"] | {"device": "b999"}}), "unknown device 'b999'"),
        (changed({"deployment": group["deployment"] | {"model": "gpt-9"}}), "unknown model 'gpt-9'"),
        (changed({"deployment": {"model": "llama-3.1-8b"}}), "key 'device' is missing"),
        (changed({"count": 2}), r"2 replicas; expected a run of one"),
    ):
        write_json(run / "run.json", header | changes)
        with pytest.raises(InputError, match=message):
            read_recorded(run)
    write_json(run / "run.json", header)
    (run / "iterations.parquet").unlink()
    with pytest.raises(InputError, match=r"holds no iterations.parquet"):
        read_recorded(run)


def counts(batches: Any) -> list[tuple[int, int, int, int]]:
    return [(each.prefill_tokens, each.decodes, each.decode_context_sum, len(each.chunks)) for each in batches]


def test_what_no_policy_makes_again_is_read_from_the_record(tmp_path: Path) -> None:
    """Of a batch with several chunks only the policy knows which they were: with another one they are left out."""
    folder = record(tmp_path / "run", SHIPPED, requests=20)
    whole = read_recorded(folder)
    assert whole.left_out == 0
    write_json(folder / "run.json", read_json(folder / "run.json") | {"policy": {"name": "orca"}})
    rest = read_recorded(folder)
    several = [each for each in whole.batches if len(each.chunks) > 1]
    assert several
    assert rest.left_out == len(several)
    assert counts(rest.batches) == counts(each for each in whole.batches if len(each.chunks) < 2)


def test_requests_that_came_late_or_left_early(tmp_path: Path) -> None:
    """Arrival before the iteration in whose hands it first was, and aborts after some tokens, change no batch."""
    folder = record(tmp_path / "run", SHIPPED, requests=20)
    whole = read_recorded(folder)
    path = folder / "requests.parquet"
    table = parquet.read_table(path)
    for name, values in (
        ("arrival_s", np.maximum(0, table["scheduled_s"].to_numpy() - 1.0)),
        ("output_tokens", table["output_tokens"].to_numpy() + 7),
    ):
        place, field = table.schema.get_field_index(name), table.schema.field(name)
        table = table.set_column(place, field, pa.array(values, field.type))
    parquet.write_table(table, path)
    again = read_recorded(folder)
    assert again.left_out == 0
    assert counts(again.batches) == counts(whole.batches)


def test_a_short_run_is_no_ground_for_a_calibration(tmp_path: Path) -> None:
    run = record(tmp_path / "run", SHIPPED, requests=1)
    with pytest.raises(InputError, match=r"expected at least 50, and half of them"):
        read_recorded(run)


def test_an_output_that_is_no_json_file_is_refused(tmp_path: Path) -> None:
    done = command("--run", tmp_path, "--output", tmp_path / "calibrated")
    assert "expected a name that ends in .json" in str(done.exception)


@pytest.mark.parametrize("change", [{"iteration_s": -1.0}, {"factors": {"matrices": 1.0}}, {"chunk_s": "much"}])
def test_a_file_with_an_engine_that_cannot_be_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    path = tmp_path / "calibrated.json"
    replace(SHIPPED.fitted, engine=TRUE).save(path)
    document = read_json(path)
    write_json(path, document | {"engine": asdict(TRUE) | change})
    with pytest.raises(InputError, match="not a fitted device"):
        load_cost_model(PLACED, profile=path)
