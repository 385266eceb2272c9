"""The order the Sarathi-Serve paper reports, on its chat workload near saturation, from the fitted A100."""

from __future__ import annotations

import pytest

from policies import choose
from simulator.scenario import build_scenario
from simulator.simulation import simulate
from traces.metrics import Metrics, measure
from traces.run_record import read_run
from traces.source import open_workload

POLICIES = ("orca", "vllm", "sarathi-serve")
MOST_DELAY_S = 2.0
"""Median scheduling delay above which the paper calls a system overloaded (OSDI'24, section 5.1)."""


@pytest.fixture(scope="module", params=[0, 1], ids=["seed 0", "seed 1"])
def near_saturation(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Metrics]:
    workload = open_workload("chat", num_prompts=768, request_rate=2.8, seed=request.param)
    choices = {name: choose(name) for name in POLICIES}
    scenario = build_scenario(
        workload,
        model="mistral-7b",
        device="a100-sxm",
        profile=None,
        max_model_len=8192,
        policies=choices.values(),
        seed=request.param,
    )
    folder = tmp_path_factory.mktemp("runs")
    for name, choice in choices.items():
        simulate(scenario, choice, folder / name)
    return {name: measure(read_run(folder / name)) for name in POLICIES}


def test_vllm_has_the_worst_tail_between_tokens_and_sarathi_serve_the_best(
    near_saturation: dict[str, Metrics],
) -> None:
    p99_s = {name: metrics.tbt_s.p99 for name, metrics in near_saturation.items()}
    assert p99_s["sarathi-serve"] < p99_s["orca"] < p99_s["vllm"]
    assert p99_s["vllm"] > 5 * p99_s["sarathi-serve"]


def test_decodes_stall_behind_whole_prefills_under_vllm_and_never_under_sarathi_serve(
    near_saturation: dict[str, Metrics],
) -> None:
    assert near_saturation["sarathi-serve"].stalls.count == 0
    stalls = near_saturation["vllm"].stalls
    assert stalls.count > 100
    assert stalls.whole_share > 0.9
    assert stalls.mean_prefill_tokens > 1000


def test_sarathi_serve_has_at_least_the_throughput_of_the_others(near_saturation: dict[str, Metrics]) -> None:
    tokens_per_s = {name: metrics.throughput.output_tokens_per_s for name, metrics in near_saturation.items()}
    assert tokens_per_s["sarathi-serve"] >= 0.995 * max(tokens_per_s.values())


def test_orca_is_the_first_to_be_overloaded(near_saturation: dict[str, Metrics]) -> None:
    delay_s = {name: metrics.scheduling_delay_s.p50 for name, metrics in near_saturation.items()}
    assert delay_s["orca"] > MOST_DELAY_S
    assert max(delay_s["vllm"], delay_s["sarathi-serve"]) < MOST_DELAY_S
