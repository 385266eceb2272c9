"""``python -m profiler`` as people run it: real processes, real files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from profiler.profile import read_profile

ROOT = Path(__file__).resolve().parents[2]
TABLE = "layer_name,input,kv_cache,tp_size,latency(ns)\nk_proj,64,0,1,20000\nk_proj,64,0,1,1\n"


def run(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "profiler", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "160", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, check=False)


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    folder = tmp_path / "A6000/Llama-3.1-8B"
    folder.mkdir(parents=True)
    (folder / "layers.csv").write_text(TABLE)
    return folder


def test_import_writes_a_profile_and_prints_rows_and_refusals(tmp_path: Path, tables: Path) -> None:
    done = run("import", tables, "--output", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "gemm" in done.stdout
    assert "gemm: faster than the peak rate" in done.stdout
    assert "written: out" in done.stdout
    assert read_profile(tmp_path / "out").table.num_rows == 1


def test_import_tells_machines_in_json(tmp_path: Path, tables: Path) -> None:
    done = run("import", tables, "-o", "out", "--json", cwd=tmp_path)
    facts = json.loads(done.stdout)
    assert (facts["output"], facts["device"], facts["rows"]) == ("out", "a6000", 1)
    assert facts["refused"] == {"gemm: faster than the peak rate": 1}
    assert facts["ops"] == [
        {"op": "gemm", "rows": 1, "shortest_s": 2e-5, "longest_s": 2e-5, "median_spread": None},
    ]


def test_importing_twice_writes_the_same_bytes(tmp_path: Path, tables: Path) -> None:
    for name in "ab":
        assert run("import", tables, "-o", name, cwd=tmp_path).returncode == 0
    for file in ("profile.json", "ops.parquet"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("import", "nowhere", "-o", "out"), "error: nowhere: no such file or folder; expected tables of"),
        (("import", ".", "-o", "out", "--device", "a999"), "error: unknown device 'a999'; expected one of"),
        (("import", ".", "-o", "out", "--model", "gpt-9"), "error: unknown model 'gpt-9'; expected one of"),
        (("--model", "gpt-9"), "error: unknown model 'gpt-9'; expected one of"),
        (("--device", "tpu"), "error: unknown device 'tpu'; expected one of"),
        (("--dtype", "int8"), "error: --dtype: 'int8'; expected one of bfloat16, float16, float32"),
        (("--tensor-parallel-size", "3"), "error: --tensor-parallel-size: 3 does not divide the 8 query heads"),
        (("--budget", "0"), "error: --budget: is 0; expected a time above 0, up to a week: 60, 60s, 2m or 1h"),
        (("--budget", "soon"), "error: --budget: 'soon' is no duration; expected a time above 0"),
        (("--output", "A6000"), "error: A6000: exists and is something else; expected"),
    ],
)
def test_wrong_input_is_one_line_status_2_and_nothing_written(
    tmp_path: Path, tables: Path, arguments: tuple[str, ...], message: str
) -> None:
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(lines) == 1
    assert lines[0].startswith(message)
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir() if path.name != "out"] == ["A6000"]
    assert not list(tmp_path.glob("out/*"))


def test_without_a_command_it_measures_this_machine(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    done = run("--budget", "2", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["output"] == "out/profile-cpu"
    assert facts["device"] == "cpu"
    profile = read_profile(tmp_path / "out/profile-cpu")
    assert profile.table.num_rows == facts["rows"] > 0
    assert profile.meta["ceilings"]["measured_copy_bytes_per_s"] > 1e8


def test_without_torch_it_says_what_to_install(tmp_path: Path) -> None:
    script = "import sys, runpy; sys.modules['torch'] = None; sys.argv = ['profiler']; "
    script += "runpy.run_module('profiler', run_name='__main__')"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert done.returncode == 2
    wish = "error: measuring needs torch, which is not installed; expected pip install charioteer[engine]"
    assert done.stderr.strip() == wish
    assert not list(tmp_path.glob("out/*"))


def test_an_interrupt_leaves_nothing_behind(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "profiler", "--output", "out/p"]
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True) as process:
        while not list(tmp_path.glob("out/.p.*")):
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, message = process.communicate(timeout=60)
    assert process.returncode == 130, message
    assert "Traceback" not in message
    assert not list((tmp_path / "out").iterdir())


def test_help_names_every_command(tmp_path: Path) -> None:
    done = run("--help", cwd=tmp_path)
    assert done.returncode == 0
    for word in ("measure", "import"):
        assert word in done.stdout
