"""``python -m simulator`` as a person types it: what works, and what goes wrong in one line."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GOOD = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n"
LATER = "2023-11-16 18:15:50.9951690,396,109\n"


def simulator(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "simulator", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_compare_prints_a_table_and_writes_the_report_and_the_same_bytes_again(tmp_path: Path) -> None:
    command = ["compare", "--workload", "chat", "--num-prompts", "60", "--request-rate", "3"]
    command += ["--model", "mistral-7b", "--device", "a100-sxm", "--policies", "orca,vllm,sarathi-serve"]
    first = simulator(*command, "--output", "first", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert "sarathi-" in first.stdout
    assert "TBT P99 (ms)" in first.stdout
    assert first.stdout.rstrip().endswith("Report: first/report.html")
    second = simulator(*command, "--output", "second", cwd=tmp_path)
    assert digests(tmp_path / "first") == digests(tmp_path / "second")
    assert second.stdout.replace("second/", "first/") == first.stdout
    assert {"comparison.json", "report.html", "orca/run.json"} <= digests(tmp_path / "first").keys()


def test_report_compares_run_records_that_are_there(tmp_path: Path) -> None:
    command = ["compare", "--workload", "chat", "--num-prompts", "20", "--policies", "orca,vllm"]
    compared = simulator(*command, "--json", cwd=tmp_path)
    again = simulator("report", "out/compare/orca", "out/compare/vllm", "--json", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout) == json.loads(compared.stdout)
    assert (tmp_path / "out" / "report.html").stat().st_size > 1_000_000
    whole = simulator("report", "out/compare", "--json", cwd=tmp_path)
    assert json.loads(whole.stdout) == json.loads(compared.stdout)
    other = simulator(*command, "--num-prompts", "21", "--output", "other", "--json", cwd=tmp_path)
    assert other.returncode == 0
    for wrong, complaint in (
        (["out/compare/orca", "out/compare/orca"], "two runs are called compare/orca"),
        (["out/compare/orca", "other/orca"], "other/orca served other requests than compare/orca"),
        (["out/compare/orca", "--output", "trace.csv"], "expected a name that ends in .html"),
    ):
        done = simulator("report", *wrong, cwd=tmp_path)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
        assert complaint in done.stderr
    none = simulator("report", "out", cwd=tmp_path)
    assert (none.returncode, none.stderr) == (2, "error: out: no run record; expected a folder with run.json\n")


def test_run_with_json_prints_the_metrics(tmp_path: Path) -> None:
    done = simulator(
        *("run", "--workload", "chat", "--num-prompts", "20", "--json", "--perfetto"),
        *("--policy", "sarathi-serve:max_num_batched_tokens=1024", "--goodput", "ttft:500 tpot:50"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    metrics = json.loads(done.stdout)["sarathi-serve-1024"]
    assert metrics["requests"] == 20
    assert 0 <= metrics["goodput"]["share"] <= 1
    timeline = tmp_path / "out" / "run" / "sarathi-serve-1024.perfetto.json.gz"
    assert json.loads(gzip.decompress(timeline.read_bytes()))["traceEvents"]


def test_a_pipeline_shows_its_bubbles(tmp_path: Path) -> None:
    done = simulator(
        *("compare", "--workload", "chat", "--num-prompts", "40", "--model", "yi-34b", "--json"),
        *("--policies", "orca,sarathi-serve", "-tp", "2", "-pp", "2"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    metrics = json.loads(done.stdout)
    for measured in metrics.values():
        assert [bubble["stage"] for bubble in measured["bubbles"]] == [0, 1]
        assert all(0 < bubble["idle_share"] < 1 for bubble in measured["bubbles"])


@pytest.mark.parametrize("policies", ["orca", "orca,vllm"], ids=["one process", "a process each"])
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, policies: str) -> None:
    command = (
        f"ulimit -f 100; exec {sys.executable} -m simulator compare -w chat --num-prompts 200 -p {policies} -o full"
    )
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert "File too large" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("moment_s", [0.0, 0.3, 1.5])
def test_a_signal_leaves_nothing_half_written(tmp_path: Path, name: str, moment_s: float) -> None:
    command = [sys.executable, "-m", "simulator", "compare", "-w", "chat", "--num-prompts", "20000", "-o", "cut"]
    command += ["--replicas", "3", "--mtbf", "600", "--mttr", "20"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while not list(tmp_path.iterdir()) and process.poll() is None:
        time.sleep(0.01)
    time.sleep(moment_s)
    number = signal.Signals[name]
    os.killpg(process.pid, number) if name == "SIGINT" else process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == {"SIGINT": 130, "SIGTERM": 143}[name]
    assert errors == f"error: stopped by {name}; what was not complete has been removed\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "trace.csv: is empty"),
        (b"TIMESTAMP,ContextTokens,GeneratedTokns\n", "GeneratedTokns"),
        (GOOD.encode() + b"2023-11-16 18:15:50.9951690,-396,109\n", "trace.csv:3, column 'ContextTokens'"),
        ((GOOD + LATER + GOOD.splitlines()[1] + "\n").encode(), "--sort"),
        (gzip.compress((GOOD + LATER).encode() * 50)[:60], "gzip"),
    ],
    ids=["empty", "unknown column", "negative length", "time runs backwards", "truncated gzip"],
)
def test_a_bad_workload_is_one_line_and_writes_nothing(tmp_path: Path, content: bytes, complaint: str) -> None:
    (tmp_path / "trace.csv").write_bytes(content)
    done = simulator("compare", "--workload", "trace.csv", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
    assert complaint in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["trace.csv"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--max-model-len", "256"], "error: trace.csv, request 1: 374 prompt + 44 output tokens = 418"),
        (["--model", "llama-3.1-70b"], "GiB"),
        (["--policies", "orca,sarathi-server"], "--policies: unknown policy 'sarathi-server'; expected one of"),
        (["--policies", "orca:seats=3"], "unknown key 'seats'; expected one of max_num_seqs"),
        (["--policies", "orca:max_num_seqs=0"], "max_num_seqs is 0; expected an integer >= 1"),
        (["--policies", "orca,orca"], "orca is there twice"),
        (["--policies", "orca:name=3"], "unknown key 'name'"),
        (["--max-model-len", "0"], "--max-model-len 0"),
        (["--policies", "policy.json"], "policy.json: orca: unknown key 'max_num_seq'"),
        (["--policies", ","], "--policies: names no policy"),
        (["--device", "a100"], "a100"),
        (["--model", "llama-9"], "llama-9"),
        (["--workload", "nowhere.csv"], "nowhere.csv: no such file"),
        (["--goodput", "tft:5"], "tft"),
        (["--gpu-memory-utilization", "1.5"], "gpu_memory_utilization is 1.5"),
        (["--tensor-parallel-size", "3"], "3"),
        (["--output", "trace.csv"], "trace.csv: exists and is something else"),
        (["--profile", "nothing"], "nothing"),
    ],
)
def test_a_bad_option_is_one_line_and_writes_nothing(tmp_path: Path, arguments: list[str], complaint: str) -> None:
    (tmp_path / "trace.csv").write_text(GOOD + LATER)
    (tmp_path / "policy.json").write_text('{"policy": "orca", "max_num_seq": 3}')
    done = simulator("compare", "--workload", "trace.csv", *arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
    assert complaint in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"trace.csv", "policy.json"}
