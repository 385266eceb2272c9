"""The benchmark of the cost model, on made-up tables in a published format."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench.accuracy.score import coverage_by_time
from profiler import gemm
from profiler.device import load_device

SCRIPT = Path(__file__).resolve().parents[2] / "bench" / "cost_model.py"
TRUTH = dict(zip(gemm.NAMES, (5e-6, 3e-7, 0.9, 0.8, 0.6, 0.4, 0.8, 0.8, 0.5, 2.5), strict=True))
NOISE = 0.01


def write_table(folder: Path, device: str) -> None:
    """Write a table of 36 weight shapes as the device would take by known physics, with noise of one percent."""
    sizes = [float(size) for size in (1024, 2048, 3072, 4096, 5120, 8192)]
    m, n, k = (grid.ravel() for grid in np.meshgrid(2.0 ** np.arange(13), sizes, sizes))
    shape = {"m": m, "n": n, "k": k, "element_bytes": np.full(len(m), 2.0)}
    seconds = gemm.physics(TRUTH, shape, load_device(device))
    seconds *= np.exp(np.random.default_rng(0).normal(0, NOISE, len(m)))
    sizes_of = {name: shape[name].astype(np.int64) for name in ("m", "n", "k")}
    folder.mkdir(parents=True)
    pq.write_table(
        pa.table({"gemm_dtype": ["bfloat16"] * len(m), **sizes_of, "latency": 1e3 * seconds}),
        folder / "gemm_perf.parquet",
    )


def measure(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, SCRIPT, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], dict[str, Any]]:
    root = tmp_path_factory.mktemp("tables")
    for device in ("a100-sxm", "h100"):
        write_table(root / device / "gemm", device)
    done = measure(root, "--quick", "--op", "gemm", "--json")
    assert done.returncode == 0, done.stderr
    return {(line["device"], line["case"]): line for line in json.loads(done.stdout)["lines"]}


def test_errors_are_of_the_size_of_the_noise(lines: dict[tuple[str, str], dict[str, Any]]) -> None:
    for case in ("200 random, unseen shapes", "full table, unseen shapes", "profiled shapes"):
        line = lines["a100-sxm", case]
        assert NOISE / 3 < line["ours"]["median"] < 2 * NOISE
        assert line["ours"]["median"] < line["forest"]["median"]


def test_the_number_of_points(lines: dict[tuple[str, str], dict[str, Any]]) -> None:
    for case in ("200 random, unseen rows", "200 chosen, unseen shapes"):
        assert lines["a100-sxm", case]["fitted_rows"] == 200


def test_bands_are_judged_on_rows_that_no_fit_saw(lines: dict[tuple[str, str], dict[str, Any]]) -> None:
    held = lines["h100", "full table, unseen shapes"]["coverage"]
    assert 0.8 < held["all"] < 1
    assert held["least"] <= held["all"] <= held["most"]


def test_one_device_predicts_another_of_equal_physics(lines: dict[tuple[str, str], dict[str, Any]]) -> None:
    assert lines["h100", "from a100-sxm, datasheet"]["ours"]["median"] < 4 * NOISE
    assert lines["a100-sxm", "from h100, 10 points"]["fitted_rows"] == 10


def test_coverage_by_time_finds_the_bin_that_is_missed() -> None:
    predicted = np.arange(1.0, 501.0)
    found = coverage_by_time(predicted, predicted > 100)
    assert (found["all"], found["least"], found["most"], found["bins"]) == (0.8, 0.0, 1.0, 5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--op", "gem"), "error: --op: unknown op 'gem'"),
        (("absent",), "error: absent: no such file or folder"),
    ],
)
def test_what_it_cannot_judge(arguments: tuple[str, ...], message: str) -> None:
    done = measure(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1
