"""``python -m engine serve --record``: real processes, real files, real ends."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from engine.profile_command import ProfileSettings, profile_engine
from engine.session import EngineSettings
from profiler.__main__ import app as profiler
from simulator.__main__ import app as simulator
from tests.engine.server.http_double import wait_until
from tests.engine.server.test_http_serve import CONFIG, serving
from traces.run_record import read_run

ADMIN = {"Authorization": "Bearer admin"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("tiny") / "config.json"
    file.write_text(json.dumps(CONFIG))
    return file


def engine_of(process: subprocess.Popen[str]) -> int:
    """The id of the engine's process."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return next(int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes())


def complete(url: str, prompt: str, max_tokens: int) -> None:
    body = {"prompt": prompt, "max_tokens": max_tokens}
    assert httpx.post(f"{url}/v1/completions", json=body, timeout=60).status_code == 200


def begin(url: str, max_tokens: int) -> httpx.Response:
    """Return the answer to a request of which the first token has come."""
    client = httpx.Client(timeout=60)
    body = {"prompt": "endless", "max_tokens": max_tokens, "stream": True}
    answer = client.send(client.build_request("POST", f"{url}/v1/completions", json=body), stream=True)
    next(answer.iter_raw(1))
    return answer


def test_a_record_is_replayed_reported_and_calibrates(model: Path, tmp_path: Path) -> None:
    """Measured, served, recorded, and predicted better by what was recorded."""
    records, profile, mine = tmp_path / "records", tmp_path / "profile", tmp_path / "mine.json"
    settings = EngineSettings(model=str(model), load_format="dummy", max_num_seqs=8, max_model_len=512)
    profile_engine(settings, ProfileSettings(output=profile, budget=3.0), as_json=True)
    options = ("--record", str(records), "--max-num-seqs", "8", "--max-model-len", "512")
    with serving(model, *options) as (process, url):
        for turn in range(12):
            body = {"prompt": ["ab" * (5 + turn), "c" * 40 * turn + "d"], "max_tokens": 10 + turn, "n": 2}
            assert httpx.post(f"{url}/v1/completions", json=body, timeout=60).status_code == 200
        begin(url, 400).close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
    (record,) = records.iterdir()
    assert sorted(each.name for each in record.iterdir()) == [
        "iterations.parquet",
        "requests.parquet",
        "run.json",
        "workload.jsonl",
    ]
    run = read_run(record)
    assert run.requests.generated_tokens[:-1].tolist() == [10 + turn for turn in range(12) for _ in range(4)]
    assert run.requests.generated_tokens[-1] < 400
    assert all(b"abab" not in each.read_bytes() for each in record.iterdir())
    done = CliRunner().invoke(
        profiler, ["calibrate", "--run", str(record), "--profile", str(profile), "--output", str(mine), "--json"]
    )
    assert done.exit_code == 0, done.output + str(done.exception)
    tested = json.loads(done.output)["tested"]
    assert tested["after"]["errors"]["time_weighted"] < tested["before"]["errors"]["time_weighted"]
    workload = ["--workload", str(record / "workload.jsonl"), "--model", str(model), "--device", "cpu"]
    replayed = CliRunner().invoke(
        simulator,
        [
            *("run", *workload, "--max-model-len", "512", "--profile", str(mine), "--policy", "vllm-v1:max_num_seqs=8"),
            *("--output", str(tmp_path / "simulated"), "--json"),
        ],
    )
    assert replayed.exit_code == 0, replayed.output + str(replayed.exception)
    (metrics,) = json.loads(replayed.output).values()
    assert metrics["finished"] == 49
    reported = CliRunner().invoke(simulator, ["report", str(record), "--output", str(tmp_path / "report.html")])
    assert reported.exit_code == 0, reported.output + str(reported.exception)


def test_a_full_disk_stops_recording_alone(model: Path, tmp_path: Path) -> None:
    with serving(model, "--record", str(tmp_path)) as (process, url):
        engine = engine_of(process)
        complete(url, "short", 4)
        swapped = httpx.post(f"{url}/admin/policy", json={"policy": "sarathi-serve"}, headers=ADMIN)
        assert swapped.status_code == 200
        wait_until((tmp_path / "0001").exists)
        resource.prlimit(engine, resource.RLIMIT_FSIZE, (8_000, 8_000))
        complete(url, "long", 1000)
        assert httpx.post(f"{url}/admin/policy", json={"policy": "vllm"}, headers=ADMIN).status_code == 200
        wait_until(lambda: [each.name for each in tmp_path.iterdir()] == ["0001"])
        complete(url, "still served", 20)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 0
    (line,) = [each for each in said.splitlines() if "recording" in each]
    assert line.startswith("recording has stopped, and serving goes on: [Errno 27]")
    assert [each.name for each in tmp_path.iterdir()] == ["0001"]
    assert read_run(tmp_path / "0001").requests.generated_tokens.tolist() == [4]


def test_what_a_kill_leaves(model: Path, tmp_path: Path) -> None:
    """Of the engine: complete records alone. Of the server: the last one too, for the engine ends in good order."""
    with serving(model, "--record", str(tmp_path)) as (process, url):
        complete(url, "lost", 4)
        begin(url, 4000)
        os.kill(engine_of(process), signal.SIGKILL)
        assert process.wait(timeout=60) == 1
    assert not (tmp_path / "0001").exists()
    with serving(model, "--record", str(tmp_path)) as (process, url):
        wait_until(lambda: not list(tmp_path.iterdir()))
        complete(url, "kept", 4)
        begin(url, 4000)
        process.kill()
        wait_until((tmp_path / "0001").exists)
    run = read_run(tmp_path / "0001")
    assert run.requests.generated_tokens[0] == 4
    assert 1 <= run.requests.generated_tokens[1] < 4000


def test_a_folder_that_cannot_be_had_is_said(model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(AssertionError, match=r"error: --record .*file: cannot write: File exists"),
        serving(model, "--record", str(tmp_path / "file")),
    ):
        pass
