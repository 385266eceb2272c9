"""``profiler show`` and ``profiler fit`` as a user runs them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from profiler.importers import import_tables
from profiler.profile import write_profile


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "profiler", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={"COLUMNS": "160", "PATH": ""})


def test_predicted_beside_published() -> None:
    shown = run("show", "--device", "a6000", "--model", "llama-13b")
    assert shown.returncode == 0, shown.stderr
    for text in ("prefill 1021 + decode 3", "224.80", "92.33", "256 -> 257", "measured on a6000", "KV blocks"):
        assert text in shown.stdout


def test_json() -> None:
    report = json.loads(run("show", "--device", "h200", "--model", "llama-3.1-8b", "--json").stdout)
    assert report["cost_model"]["transferred"]
    assert report["cost_model"]["from"] == "h100"
    for row in report["iterations"]:
        assert sum(row["parts_s"].values()) == pytest.approx(row["time_s"])
        assert row["low_s"] <= row["time_s"] <= row["high_s"]


def test_a_deployment_file(tmp_path: Path) -> None:
    path = tmp_path / "deployment.json"
    path.write_text('{"model": "yi-34b", "device": "a100-pcie", "tensor_parallel_size": 2}')
    shown = run("show", "--deployment", str(path))
    assert "transferred from a100-sxm" in shown.stdout
    assert "Sarathi-Serve" in shown.stdout
    assert "90 % band" in shown.stdout
    assert "90 % band" not in run("show", "--deployment", str(path), "--no-interval").stdout


def test_it_says_what_was_measured_and_marks_what_was_not() -> None:
    arguments = ("show", "--device", "a100-sxm", "--model", "llama-3.1-8b")
    shown = run(*arguments).stdout
    assert "decode attention measured on a100-sxm: decodes 1 - 2,048, decode context 2 - 131,072" in shown
    assert "* prefill attention: past tokens of a chunk 1,024, beyond the 0 measured" in shown
    report = json.loads(run(*arguments, "--json").stdout)
    assert report["measured"]["prefill_attention"]["past_tokens"] == [0, 0]
    assert [row["batch"] for row in report["iterations"] if row["outside"]] == ["prefill 480 after 1024 + decode 32"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("show", "--device", "a6000"),
        ("show", "--device", "a6000", "--model", "gpt3-175b"),
        ("show", "--device", "a7000", "--model", "llama-13b"),
        ("show", "--deployment", "nowhere.json"),
        ("fit", "nowhere"),
    ],
)
def test_wrong_input_is_one_line(arguments: tuple[str, ...]) -> None:
    failed = run(*arguments)
    assert failed.returncode == 2
    assert failed.stderr.startswith("error: ")
    assert failed.stderr.count("\n") == 1
    assert failed.stdout == ""


def test_fit_prints_held_out_errors(data: Path, tmp_path: Path) -> None:
    write_profile(tmp_path / "profile", import_tables(data / "profiles/llmservingsim/RTX4090", "rtx-4090"))
    output = tmp_path / "fitted.json"
    fitted = run("fit", str(tmp_path / "profile"), "--output", str(output))
    assert fitted.returncode == 0, fitted.stderr
    for text in ("gemm, unseen shapes", "gemm, profiled shapes", "decode_attention", "median", "mixed_attention"):
        assert text in fitted.stdout
    assert json.loads(output.read_text())["device"] == "rtx-4090"
