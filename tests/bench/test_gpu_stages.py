"""Every stage of ``bench/gpu.sh`` with tiny sizes on a CPU, in a process, as it would run on a GPU."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

pytest.importorskip("transformers", reason="the engine needs transformers")

from traces.files import write_json

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 128,
    "max_position_embeddings": 1024,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
    "bos_token_id": None,
    "eos_token_id": None,
}


def stage(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = ["bash", ROOT / "bench" / "gpu.sh", name, *arguments]
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, cwd="/")


def quick(name: str, folder: Path) -> str:
    """Run a stage on a tiny model; return what it printed."""
    write_json(folder / "tiny.json", CONFIG)
    options = ("--device", "cpu", "--quick", "--model", folder / "tiny.json", "--python", sys.executable)
    done = stage(name, folder / "out", *options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_checkout_that_is_not_installed_is_found(tmp_path: Path) -> None:
    """Without site-packages only what the stages put on the path is there."""
    subprocess.run([sys.executable, ROOT / "bench" / "gpu" / "installed.py", tmp_path], check=True)
    script = (
        "from importlib.metadata import entry_points, version; "
        "print(version('charioteer'), *(found.value for found in entry_points(group='charioteer.kernels')))"
    )
    command = [sys.executable, "-S", "-c", script]
    found = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd="/", env={"PYTHONPATH": str(tmp_path)}
    )
    assert found.stdout.split() == [PROJECT["version"], "engine.kernels:TorchKernels"]


def test_check_measures_both_ceilings(tmp_path: Path) -> None:
    out = quick("check", tmp_path)
    document = json.loads((tmp_path / "out" / "check.json").read_text())
    assert document["copy_bytes_per_s"] > 0
    assert document["flops_per_s"] > 0
    assert document["after"]["torch"] in out


def test_kernels_of_every_backend_that_runs(tmp_path: Path) -> None:
    out = quick("kernels", tmp_path)
    rows = json.loads((tmp_path / "out" / "kernels.json").read_text())["rows"]
    assert all(row["seconds"]["sdpa"] > 0 < row["floor_s"] for row in rows)
    assert ["sdpa" in row["two_calls_s"] for row in rows] == ["mixed" in row["shape"] for row in rows]
    assert all(row["shape"] in out for row in rows)


def test_engine_beside_transformers(tmp_path: Path) -> None:
    out = quick("engine", tmp_path)
    rows = json.loads((tmp_path / "out" / "engine.json").read_text())["rows"]
    assert [row["batch"] for row in rows] == ["decode 1 x 32", "decode 2 x 32", "prefill 16", "prefill 64"]
    assert all(row["seconds"] > 0 < row["floor_s"] for row in rows)
    beside = (tmp_path / "out" / "engine_vs_transformers.txt").read_text()
    assert "100.0%" in beside
    assert beside in out


def test_profile_finds_the_engines_kernels(tmp_path: Path) -> None:
    assert "gemm" in quick("profile", tmp_path)
    assert {path.name for path in (tmp_path / "out" / "profile").iterdir()} == {"profile.json", "ops.parquet"}


def test_validate_writes_its_report(tmp_path: Path) -> None:
    pytest.importorskip("simpy", reason="the simulator needs simpy")
    out = quick("validate", tmp_path)
    folder = tmp_path / "out" / "validation"
    assert {"validation.json", "report.html", "profile", "measured"} <= {path.name for path in folder.iterdir()}
    assert "report.html" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nothing", "DIR"), "unknown stage 'nothing'"),
        (("check",), "no folder"),
        (("check", "DIR", "--fast"), "unknown option --fast"),
        (("check", "DIR", "--device"), "--device: no value"),
        (("check", "DIR", "--device", "tpu"), "--device: unknown device 'tpu'; expected cuda ("),
    ],
)
def test_what_it_cannot_run_is_one_line(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    given = [str(tmp_path / "out") if part == "DIR" else part for part in arguments]
    done = stage(*given, *(("--python", sys.executable) if len(given) == 2 else ()))
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {message}")
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())
