"""The simulation against a plain loop, and the order of things in a pipeline."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from policies import POLICIES, Policy, Sequence, choose
from simulator.simulation import Scenario, simulate
from traces.run_record import RunRecord, read_run
from traces.workload import Workload

SMALL = {"vllm-v1": {"max_num_seqs": 64}}
Row = tuple[float, float, int, int, int]


def simulated(scenario: Scenario, name: str, folder: Path, **settings: int) -> RunRecord:
    simulate(scenario, choose(name, **(SMALL.get(name, {}) | settings)), folder / name)
    return read_run(folder / name)


def plain_loop(scenario: Scenario, policy: Policy) -> list[Row]:
    """Replay on one stage without SimPy: take arrivals, schedule, let the time pass, complete."""
    workload, now_s, following, rows = scenario.workload, 0.0, 0, []
    while following < len(workload) or policy.has_work:
        while following < len(workload) and workload.arrival_s[following] <= now_s:
            policy.add(
                Sequence(
                    following,
                    arrival_s=float(workload.arrival_s[following]),
                    prompt_tokens=int(workload.prompt_tokens[following]),
                    output_tokens=int(workload.output_tokens[following]),
                )
            )
            following += 1
        batch = policy.schedule(now_s)
        if batch is None:
            now_s = float(workload.arrival_s[following])
            continue
        start_s, now_s = now_s, now_s + scenario.cluster.groups[0].cost_model.iteration_time(batch)
        policy.complete(batch, now_s)
        rows.append((start_s, now_s, batch.prefill_tokens, batch.decodes, batch.decode_context_sum))
    return rows


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("blocks", [130, 2000])
def test_one_stage_runs_as_the_plain_loop(
    name: str,
    blocks: int,
    tmp_path: Path,
    random_workload: Callable[..., Workload],
    paper_scenario: Callable[..., Scenario],
) -> None:
    scenario = paper_scenario(random_workload(), blocks=blocks)
    iterations = simulated(scenario, name, tmp_path).iterations
    columns = ("start_s", "end_s", "prefill_tokens", "decodes", "decode_context_sum")
    rows = list(zip(*(getattr(iterations, column).tolist() for column in columns), strict=True))
    expected = plain_loop(scenario, scenario.cluster.groups[0].policy(choose(name, **SMALL.get(name, {}))))
    assert [row[2:] for row in rows] == [row[2:] for row in expected]
    np.testing.assert_allclose([row[:2] for row in rows], [row[:2] for row in expected], rtol=1e-12)


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("stages", [1, 2, 4])
def test_every_request_ends_with_its_exact_output(
    name: str,
    stages: int,
    tmp_path: Path,
    random_workload: Callable[..., Workload],
    paper_scenario: Callable[..., Scenario],
) -> None:
    workload = random_workload()
    run = simulated(paper_scenario(workload, blocks=300, stages=stages), name, tmp_path)
    requests = run.requests
    np.testing.assert_array_equal(requests.generated_tokens, workload.output_tokens)
    assert (requests.arrival_s <= requests.scheduled_s).all()
    assert (requests.scheduled_s < requests.first_token_s).all()
    assert (requests.first_token_s <= requests.finished_s).all()
    assert run.iterations.gap_count.sum() == (workload.output_tokens - 1).sum()
    assert run.iterations.outputs.sum() == workload.output_tokens.sum()


@pytest.mark.parametrize("name", POLICIES)
def test_stages_work_in_turn(
    name: str,
    tmp_path: Path,
    random_workload: Callable[..., Workload],
    paper_scenario: Callable[..., Scenario],
) -> None:
    stages = 3
    iterations = simulated(paper_scenario(random_workload(), stages=stages), name, tmp_path).iterations
    start_s, end_s = iterations.stage_start_s, iterations.stage_start_s + iterations.stage_time_s
    assert (start_s[:, 1:] >= end_s[:, :-1] + 0.001 - 1e-9).all(), "a stage began before its input was there"
    assert (start_s[1:] >= end_s[:-1] - 1e-9).all(), "a stage ran two batches at once"
    in_flight = [
        int(((iterations.start_s < now_s - 1e-9) & (iterations.end_s > now_s + 1e-9)).sum())
        for now_s in iterations.start_s
    ]
    assert max(in_flight) == stages - 1, "more batches were in flight than stages, or never as many"


def test_a_pipeline_by_hand(tmp_path: Path, paper_scenario: Callable[..., Scenario]) -> None:
    """Two prompts of 100 tokens, one a micro-batch: 20 ms a prefill, 10.1 ms a decode, 1 ms between stages."""
    workload = Workload(
        name="two",
        arrival_s=np.zeros(2),
        prompt_tokens=np.array([100, 100]),
        output_tokens=np.array([2, 1]),
    )
    run = simulated(paper_scenario(workload, stages=2), "orca", tmp_path, max_num_seqs=2)
    np.testing.assert_allclose(run.iterations.stage_start_s, [[0.0, 0.021], [0.020, 0.041], [0.041, 0.061]], atol=1e-12)
    np.testing.assert_allclose(run.requests.first_token_s, [0.041, 0.061], atol=1e-12)
    np.testing.assert_allclose(run.requests.finished_s, [0.0711, 0.061], atol=1e-12)


def digest(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.mark.parametrize("stages", [1, 2])
def test_the_same_simulation_writes_the_same_bytes(
    stages: int,
    tmp_path: Path,
    random_workload: Callable[..., Workload],
    paper_scenario: Callable[..., Scenario],
) -> None:
    scenario = paper_scenario(random_workload(), blocks=150, stages=stages)
    for folder in ("first", "second"):
        simulate(scenario, choose("sarathi-serve"), tmp_path / folder)
    assert digest(tmp_path / "first") == digest(tmp_path / "second")
    assert len(digest(tmp_path / "first")) == 3
