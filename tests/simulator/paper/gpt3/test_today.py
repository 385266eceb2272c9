"""GPT-3 on 64 GPUs of today."""

from __future__ import annotations

import pytest

from profiler.overhead import OVERHEAD_S
from simulator.paper.gpt3.setup import ORCA, SARATHI, STAGES, TP, completion_s
from simulator.paper.gpt3.today import VLLM_TP, today, ways
from simulator.paper.gpt3.today_figures import chunk_panel, ways_panel


def test_more_memory_takes_the_reason_for_a_pipeline_away() -> None:
    a100, h200 = today("a100-sxm"), today("h200")
    assert h200.batch_limit(1) / h200.batch_limit(STAGES) > 1.3 * a100.batch_limit(1) / a100.batch_limit(STAGES)


def test_ways() -> None:
    setup = today("h100", requests=250)
    runs = {way: run() for way, run in ways(setup, chunks=(1024,)).items()}
    tokens = setup.workload.output_tokens.tolist()
    assert all(run.requests.generated_tokens.tolist() == tokens for run in runs.values())
    assert {ORCA, SARATHI, TP, VLLM_TP, f"{SARATHI} (1024)", "TP8-PP8, vLLM v1"} <= set(runs)
    assert completion_s(runs[SARATHI]) < completion_s(runs[f"{SARATHI} (1024)"]) < completion_s(runs[ORCA])
    assert {group.cost_model["overhead_s"] for run in runs.values() for group in run.meta.groups} == {OVERHEAD_S}


def test_figures_say_what_is_fastest() -> None:
    ways_figure = ways_panel({"A100": {"slow": 20.0, "fast": 10.0}}, {"slow": "#0072B2", "fast": "#D55E00"})
    assert "A100: fastest is fast, then slow (2.00 times as long)" in ways_figure.caption
    chunks = chunk_panel({"A100": {256: 10.0, 512: 12.0, 4096: 30.0}})
    assert "A100 256" in chunks.caption
    (trace,) = chunks.figure.data
    assert list(trace.y) == pytest.approx([1.0, 1.2, 3.0])
