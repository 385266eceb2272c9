"""``simulator replay-run``: what it makes of published runs, and of broken ones."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simulator.replay.engine_settings import captured, read_settings
from simulator.replay.latencies import Latencies, compare, disagreements
from simulator.replay.prefix_hits import prefix_hits
from simulator.replay.published_run import Measured, read_published_run
from simulator.replay.session import replay_run
from traces.errors import InputError

RUNS = ("RTX4090", "RTXPRO6000")
GIB = 2**30


def run_of(data: Path, device: str) -> Path:
    return data / "runs" / "vllm019" / device / "Llama-3.1-8B"


@pytest.fixture
def copy(data: Path, tmp_path: Path) -> Path:
    """A copy of a published run, to be broken."""
    target = tmp_path / "copy"
    shutil.copytree(run_of(data, "RTX4090"), target)
    return target


@pytest.mark.parametrize("device", RUNS)
def test_the_summarys_figures_of_the_real_run_follow_from_its_requests(data: Path, device: str) -> None:
    run = read_published_run(run_of(data, device))
    measured = Latencies.measured(run.requests)
    rows = compare(measured, measured, run.summary)
    assert len(rows) == 15
    assert run.summary is not None
    assert run.summary.measured_s.keys() == {row.key for row in rows}
    assert list(disagreements(rows, run.summary)) == []


def test_a_replay_writes_record_figures_and_report(data: Path, tmp_path: Path) -> None:
    tables = data / "profiles" / "llmservingsim" / "RTXPRO6000"
    output = tmp_path / "out"
    result = replay_run(run_of(data, "RTXPRO6000"), output, profile=tables, device=None, model=None)
    assert {entry.name for entry in output.iterdir()} == {"run", "replay.json", "report.html"}
    document = json.loads((output / "replay.json").read_text())
    assert document["latencies"]["TPOT"]["Median"]["other_error"] == pytest.approx(0, abs=0.005)
    assert max(abs(row.error) for row in result.rows if row.key[0] != "TTFT") < 0.05
    assert result.audit is not None
    assert "kv_cache_pct" not in {series.name for series in result.audit.series}
    tokens = {series.name: series.simulated.sum() for series in result.audit.series}
    requests = result.run.requests
    assert tokens["prompt_throughput"] == requests.prompt_tokens.sum()
    assert tokens["gen_throughput"] == requests.output_tokens.sum()
    assert np.all(result.simulated.ttft_s > 0)
    assert result.derived_blocks


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", "{}", "does not describe one instance"),
        ("vllm/requests.jsonl", "", "holds no request"),
        ("vllm/requests.jsonl", '{"input_toks": 0}\n', "input_toks is 0"),
        ("vllm/requests.jsonl", "x\n", "not JSON"),
        ("vllm/timeseries.csv", "t,running\n", "is missing"),
        ("vllm/meta.json", '{"engine_kwargs": {"max_num_seqs": "many"}}', "max_num_seqs is 'many'"),
        ("vllm/meta.json", '{"engine_kwargs": {"pipeline_parallel_size": 2}}', "pipeline_parallel_size"),
        ("vllm/meta.json", '{"started_at": "soon"}', "started_at"),
        ("validation/summary.txt", "hello\n", "is no summary"),
    ],
)
def test_a_broken_file_is_named_and_nothing_written(
    copy: Path, tmp_path: Path, name: str, content: str, message: str
) -> None:
    (copy / name).write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=message) as error:
        replay_run(copy, tmp_path / "out", profile=None, device=None, model=None)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_missing_file_is_named(copy: Path, tmp_path: Path) -> None:
    (copy / "vllm" / "requests.jsonl").unlink()
    with pytest.raises(InputError, match=r"requests\.jsonl"):
        replay_run(copy, tmp_path / "out", profile=None, device=None, model=None)
    with pytest.raises(InputError, match="no such folder"):
        read_published_run(tmp_path / "none")


def test_time_series_and_summary_may_be_missing(copy: Path) -> None:
    shutil.rmtree(copy / "validation")
    (copy / "vllm" / "timeseries.csv").unlink()
    run = read_published_run(copy)
    assert run.summary is None
    assert not run.seconds


def test_settings_come_from_what_the_engine_resolved_then_from_what_it_was_told_then_from_defaults() -> None:
    document: dict[str, Any] = {
        "engine_kwargs": {"max_num_seqs": 64, "max_num_batched_tokens": 512, "max_model_len": None},
        "resolved_config": {"scheduler_config": {"max_num_batched_tokens": 1024, "async_scheduling": False}},
        "kv_cache": {"num_gpu_blocks": 101},
    }
    settings = read_settings(document, 24 * GIB, where="meta.json")
    assert (settings.max_num_seqs, settings.max_num_batched_tokens, settings.kv_blocks) == (64, 1024, 100)
    assert (settings.async_scheduling, settings.enable_prefix_caching, settings.max_model_len) == (False, True, None)
    silent = read_settings({}, 96 * GIB, where="meta.json")
    assert (silent.max_num_seqs, silent.max_num_batched_tokens, silent.async_scheduling) == (1024, 8192, True)


def test_captured_sizes_are_those_that_a_run_reports(data: Path) -> None:
    run = read_published_run(run_of(data, "RTX4090"))
    assert list(captured(256)) == run.meta["resolved_config"]["compilation_config"]["cudagraph_capture_sizes"]
    assert captured(3) == (1, 2, 4)


def measured(*rows: tuple[int, float, float]) -> Measured:
    """Requests of (prompt tokens, scheduled, first token)."""
    tokens, scheduled_s, first_s = (np.asarray(column, dtype=float) for column in zip(*rows, strict=True))
    return Measured(
        prompt_tokens=tokens.astype(np.int64),
        output_tokens=np.full(len(rows), 2),
        arrival_s=scheduled_s,
        queued_s=scheduled_s,
        scheduled_s=scheduled_s,
        first_token_s=first_s,
        last_token_s=first_s + 1,
    )


def test_more_prompt_tokens_than_an_iteration_takes_must_have_been_prefix_hits() -> None:
    settings = read_settings({"engine_kwargs": {"max_num_batched_tokens": 2048}}, 24 * GIB, where="meta.json")
    (caution,) = prefix_hits(measured((1255, 1.0, 1.5), (851, 1.0, 1.5), (900, 1.0, 2.0)), settings)
    assert "at least 58 were prefix hits" in caution
    apart = measured((1255, 1.0, 1.5004), (851, 1.0001, 1.5006))
    assert "at least 58" in next(prefix_hits(apart, settings))
    whole = measured((1255, 1.0, 1.5), (793, 1.0, 1.5), (5000, 2.0, 3.0))
    assert list(prefix_hits(whole, settings)) == []
    off = replace(settings, enable_prefix_caching=False)
    assert list(prefix_hits(measured((1255, 1.0, 1.5), (851, 1.0, 1.5)), off)) == []


def test_the_published_run_that_had_prefix_hits_says_so(data: Path) -> None:
    for device, batches in (("RTX4090", 4), ("RTXPRO6000", 0)):
        run = read_published_run(run_of(data, device))
        settings = read_settings(run.meta, 24 * GIB, where="meta.json")
        assert [caution.split()[0] for caution in prefix_hits(run.requests, settings)] == [str(batches)][:batches]
