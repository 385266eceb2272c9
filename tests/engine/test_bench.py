"""The commands ``bench throughput`` and ``bench latency``, and what they measure."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("transformers", reason="the engine needs transformers")

from engine.bench_app import app
from engine.bench_latency import LatencySettings, measure_latency
from engine.bench_measure import measure_throughput
from engine.bench_workload import BenchWorkload
from engine.engine import Engine
from traces.errors import InputError
from traces.goodput import GoodputRule


class Ticks:
    """A clock that is a second later each time it is read, and waits for nothing."""

    def start(self) -> None:
        self._now_s = 0.0

    def now_s(self) -> float:
        self._now_s += 1.0
        return self._now_s

    def wait_until(self, time_s: float) -> None:
        self._now_s = max(self._now_s, time_s)

    @contextmanager
    def stopped(self) -> Iterator[None]:
        now_s = self._now_s
        yield
        self._now_s = now_s


@pytest.fixture
def bench(capfd: pytest.CaptureFixture[str], tiny_folder: Path) -> Callable[..., tuple[int, str]]:
    """bench(*arguments) -> exit status and standard output, within this process."""

    def call(command: str, *arguments: str | Path) -> tuple[int, str]:
        try:
            app(args=[command, "--model", str(tiny_folder), *map(str, arguments)], prog_name="bench")
            status: Any = 0
        except SystemExit as ended:
            status = ended.code
        return int(status or 0), capfd.readouterr().out

    return call


def test_throughput_by_a_clock_that_ticks(make_engine: Callable[..., Engine]) -> None:
    """Three equal prompts in one batch of chunks, then three decodes at a time: every iteration takes one second."""
    clock = Ticks()
    clock.start()
    engine = make_engine("vllm", clock=clock)
    seen: list[int] = []
    workload = BenchWorkload(num_prompts=3, input_len=8, output_len=4).open(0)
    rule = GoodputRule(ttft_s=1.5)
    result = measure_throughput(engine, workload, goodput=rule, on_progress=seen.append)
    assert (result.requests, result.input_tokens, result.output_tokens) == (3, 24, 12)
    assert (result.iterations, result.iteration_s, result.duration_s) == (4, 1.0, 4.0)
    assert (result.ttft_s.mean, result.tpot_s.mean, result.itl_s.max, result.itl_s.count) == (1.0, 1.0, 1.0, 9)
    assert result.good_requests == 3
    assert result.peak_kv == 9 / 64
    assert seen == [3]
    assert result.as_dict()["output_throughput"] == 3.0
    assert result.as_dict()["median_ttft_ms"] == 1000.0


def test_targets_that_nobody_meets_and_outputs_of_one_token(make_engine: Callable[..., Engine]) -> None:
    workload = BenchWorkload(num_prompts=2, input_len=8, output_len=1).open(0)
    result = measure_throughput(make_engine(), workload, goodput=GoodputRule(ttft_s=1e-9))
    assert result.good_requests == 0
    document = result.as_dict()
    assert (document["request_goodput"], document["mean_tpot_ms"], document["p99_itl_ms"]) == (0, None, None)
    json.dumps(document, allow_nan=False)
    assert 0 <= result.outside_model < 1


def test_a_request_that_can_never_be_served_is_named(make_engine: Callable[..., Engine]) -> None:
    with pytest.raises(InputError, match=r"random 99/1, request 1: .* expected at most --max-model-len 64"):
        measure_throughput(make_engine(), BenchWorkload(num_prompts=1, input_len=99, output_len=1).open(0))


@pytest.mark.parametrize("policy", ["vllm-v1", "sarathi-serve", "orca"])
def test_the_command_prints_and_writes_the_same_figures(
    policy: str, bench: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    shape = ("--input-len", "12", "--output-len", "5", "--num-prompts", "6", "--range-ratio", "0.4")
    written = tmp_path / "results" / "run.json"
    status, out = bench("throughput", *shape, "--policy", policy, "--output", written, "--json")
    document = json.loads(out)
    assert status == 0
    assert document == json.loads(written.read_text())
    assert (document["policy"], document["completed"], document["dtype"]) == (policy, 6, "float32")
    rate = document["total_output_tokens"] / document["elapsed_time"]
    assert document["output_throughput"] == pytest.approx(rate)


def test_the_summary_has_vllms_lines(bench: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    shape = ("--dataset-name", "nano-vllm", "--num-prompts", "2", "--length-scale", "0.02")
    status, out = bench("throughput", *shape, "--goodput", "ttft:100000")
    assert status == 0
    for line in (
        "Successful requests:                                     2",
        "Benchmark duration (s):",
        "Total input tokens:",
        "Total generated tokens:",
        "Request throughput (req/s):",
        "Request goodput (req/s):",
        "Output token throughput (tok/s):",
        "Total token throughput (tok/s):",
        "Mean TTFT (ms):",
        "P99 TPOT (ms):",
        "Median ITL (ms):",
        "Time outside the model (%):",
        "Peak KV cache usage (%):",
    ):
        assert line in out
    assert list(tmp_path.iterdir()) == []


def test_latency_of_one_batch(bench: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    shape = ("--batch-size", "3", "--input-len", "8", "--output-len", "4", "--num-iters-warmup", "1")
    status, out = bench("latency", *shape, "--num-iters", "4", "--json", "-o", tmp_path / "latency.json")
    document = json.loads(out)
    assert status == 0
    assert document == json.loads((tmp_path / "latency.json").read_text())
    assert len(document["latencies"]) == 4
    assert document["avg_latency"] == pytest.approx(np.mean(document["latencies"]))
    assert list(document["percentiles"]) == ["10", "25", "50", "75", "90", "99"]
    assert 0 < document["mean_ttft_ms"] < 1e3 * max(document["latencies"])
    status, out = bench("latency", *shape, "--num-iters", "2")
    assert "90% percentile latency (s):" in out
    assert "Mean TPOT (ms):" in out


def test_latency_by_a_clock_that_ticks(make_engine: Callable[..., Engine]) -> None:
    """The batch arrives at one tick; four iterations of two readings each follow."""
    clock = Ticks()
    clock.start()
    engine = make_engine("vllm", clock=clock)
    seen: list[int] = []
    asked = LatencySettings(batch_size=2, input_len=8, output_len=4, num_iters_warmup=1, num_iters=2)
    result = measure_latency(engine, asked, on_progress=seen.append)
    assert (result.latencies_s, result.ttft_s, result.tpot_s) == ((8.0, 8.0), (2.0, 2.0), (2.0, 2.0))
    assert seen == [1, 2, 3]
    alone = LatencySettings(batch_size=1, input_len=8, output_len=1, num_iters_warmup=0, num_iters=1)
    assert measure_latency(engine, alone).as_dict()["mean_tpot_ms"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("latency", "--batch-size", "0"), "--batch-size: is 0; expected an integer >= 1"),
        (("latency", "--num-iters", "0"), "--num-iters: is 0"),
        (("latency", "--num-iters-warmup", "-1"), "--num-iters-warmup: is -1; expected an integer >= 0"),
        (("latency", "--max-num-seqs", "4", "--output-len", "2"), "--batch-size: a batch of 8 under a policy with 4"),
        (("latency", "--input-len", "300"), "428 tokens"),
        (
            ("latency", "--output-len", "2", "--num-gpu-blocks-override", "20"),
            "--batch-size: a batch of 8 that needs 24",
        ),
        (("throughput", "--dataset-name", "x"), "--dataset-name: unknown dataset"),
        (("throughput", "--workload", "/absent.csv"), "/absent.csv"),
        (("throughput", "--goodput", "speed:3"), "--goodput: "),
        (("throughput", "--policy", "fifo"), "--policy: unknown policy 'fifo'"),
        (("throughput", "--num-prompts", "1"), "random 1024/128, request 1: "),
    ],
)
def test_a_command_that_cannot_be(arguments: tuple[str, ...], message: str, tiny_folder: Path, tmp_path: Path) -> None:
    command, *others = arguments
    written = tmp_path / "out.json"
    with pytest.raises(InputError) as caught:
        app(args=[command, "--model", str(tiny_folder), "-o", str(written), *others], standalone_mode=False)
    assert message in str(caught.value)
    assert not written.exists()


def test_where_it_cannot_be_written_is_known_before_it_runs(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.bench_command.build_engine", lambda *_, **__: pytest.fail("an engine was built"))
    with pytest.raises(InputError, match="is no ordinary file"):
        app(args=["latency", "--model", str(tiny_folder), "-o", str(tmp_path)], standalone_mode=False)


def test_help_loads_nothing_slow() -> None:
    script = "import engine.bench_app, sys; print(*{name.split('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "transformers", "scipy", "numpy", "pyarrow"} & set(loaded)
