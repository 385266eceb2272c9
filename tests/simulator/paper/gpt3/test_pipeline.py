"""GPT-3 on 64 GPUs: batch limits from memory, which way the ratios point, what moves them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from profiler.aggregates import Aggregates, Slice
from profiler.cost_model import CostModel
from profiler.layer import kernels
from profiler.overhead import LAUNCH_GAP_S
from profiler.transfer import load_fitted
from simulator.paper.experiment import SAME
from simulator.paper.gpt3.changes import (
    AGAINST_TP,
    BUBBLES,
    EQUAL,
    FLOOR,
    PIPELINES,
    READY,
    TP_AHEAD,
    WholeThousands,
    batch_changes,
    changed,
    ratios,
)
from simulator.paper.gpt3.figures import bubble_panel, completion_panel, timeline_panel
from simulator.paper.gpt3.older_kernels import OlderKernels, yi_least_layer_s, yi_prefill_factor
from simulator.paper.gpt3.pipeline import PUBLISHED, PUBLISHED_BATCH, PUBLISHED_REPLICA_BATCH
from simulator.paper.gpt3.setup import CHUNK, ORCA, SARATHI, STAGES, TP, Setup, busy_share, completion_s
from traces.run_record import RunRecord

GIB = 2**30
REQUESTS, MANY = 400, 600


def runs_of(setup: Setup) -> dict[str, RunRecord]:
    return {way: run() for way, run in setup.three_ways().items()}


@pytest.fixture(scope="module")
def runs() -> dict[str, RunRecord]:
    return runs_of(Setup(requests=MANY))


def test_the_batch_limits_follow_from_memory() -> None:
    setup = Setup()
    assert setup.batch_limit(STAGES) == pytest.approx(PUBLISHED_BATCH, rel=SAME)
    assert setup.batch_limit(1) == pytest.approx(PUBLISHED_REPLICA_BATCH, rel=SAME)
    for stages in (1, STAGES):
        deployment = setup.deployment(stages)
        (kv_token,) = {memory.kv_block // deployment.block_size for memory in deployment.stage_memory}
        weights = max(memory.weights for memory in deployment.stage_memory)
        one_more = weights + (setup.batch_limit(stages) + 1) * stages * 4096 * kv_token
        assert one_more < deployment.hardware.memory_bytes
        assert one_more + 2 * GIB > setup.memory_share * deployment.hardware.memory_bytes


def test_more_memory_holds_more() -> None:
    usual = (Setup().batch_limit(STAGES), Setup().batch_limit(1))
    assert all(change.ours > limit for change, limit in zip(batch_changes(), usual, strict=True))


def test_all_requests_are_there_at_once_with_ten_prompt_tokens_for_one_of_output() -> None:
    workload = Setup(requests=2000).workload
    assert not workload.arrival_s.any()
    assert workload.total_tokens.min() >= 1024
    assert workload.total_tokens.max() <= 4096
    np.testing.assert_allclose(workload.prompt_tokens / workload.output_tokens, 10, rtol=0.02)


def test_sarathi_wins_by_far_less_bubbles(runs: dict[str, RunRecord]) -> None:
    found = ratios(runs)
    assert found[BUBBLES] > PUBLISHED[BUBBLES]
    assert found[PIPELINES] > PUBLISHED[PIPELINES]
    assert found[AGAINST_TP] == pytest.approx(PUBLISHED[AGAINST_TP], rel=SAME)
    assert found[TP_AHEAD] == pytest.approx(found[PIPELINES] / found[AGAINST_TP])
    assert not runs[TP].requests.bubble_s.any()


def test_the_same_tokens_whichever_way(runs: dict[str, RunRecord]) -> None:
    made = {int(run.requests.generated_tokens.sum()) for run in runs.values()}
    assert made == {int(Setup(requests=MANY).workload.output_tokens.sum())}
    assert busy_share(runs[ORCA]) < 0.5 < 0.85 < busy_share(runs[SARATHI]) <= 1


def test_the_run_is_the_same_again(runs: dict[str, RunRecord]) -> None:
    setup = Setup(requests=MANY)
    again = setup.run(setup.choice(STAGES, CHUNK), STAGES)
    assert runs[SARATHI].requests.finished_s.tobytes() == again.requests.finished_s.tobytes()
    assert runs[SARATHI].requests.bubble_s.tobytes() == again.requests.bubble_s.tobytes()


def test_equal_requests_leave_few_bubbles_even_to_orca() -> None:
    setups = changed(requests=REQUESTS)
    equal, ready = ratios(runs_of(setups[EQUAL])), ratios(runs_of(setups[READY]))
    assert equal[PIPELINES] < 1.5 < 2 < ready[PIPELINES]
    assert equal[BUBBLES] < PUBLISHED[BUBBLES] < ready[BUBBLES]


def test_each_change_changes_one_thing_or_says_two() -> None:
    base = Setup(requests=REQUESTS)
    for what, setup in changed(REQUESTS).items():
        differing = [name for name, value in vars(base).items() if vars(setup)[name] != value]
        assert len(differing) == (0 if "requests (so" in what else 2 if " and " in what else 1), what


def test_lengths_of_whole_thousands() -> None:
    prompt, output = WholeThousands().draw(4000, np.random.default_rng(1))
    totals, counts = np.unique(prompt + output, return_counts=True)
    assert totals.tolist() == [1024, 2048, 3072, 4096]
    weights = np.arange(1, 5) ** -0.4
    np.testing.assert_allclose(counts / 4000, weights / weights.sum(), atol=0.03)


def test_older_kernels() -> None:
    deployment = Setup().deployment(STAGES)
    fitted = load_fitted(deployment.hardware)
    usual = CostModel(deployment, fitted)
    chunk = Aggregates(chunks=(Slice(256, past=2000),))
    decode = Aggregates(decodes=1, outputs=1, decode_context_sum=1000, decode_context_max=1000)
    slow = OlderKernels(deployment, fitted, prefill_factor=3.0)
    more_s = slow.iteration_time(chunk, 1) - usual.iteration_time(chunk, 1)
    assert more_s == pytest.approx(2 * usual.breakdown(chunk, 1)["prefill attention"])
    assert slow.iteration_time(decode, 1) == usual.iteration_time(decode, 1)
    floor = OlderKernels(deployment, fitted, least_layer_s=yi_least_layer_s())
    assert floor.iteration_time(decode, 1) == pytest.approx(12 * 46.8e-3 / 60)
    assert yi_prefill_factor() > 1


def test_kernels_are_launched_one_by_one_by_the_engine_of_the_paper(runs: dict[str, RunRecord]) -> None:
    (group,) = runs[SARATHI].meta.groups
    overhead_s = group.cost_model["overhead_s"]
    assert overhead_s == LAUNCH_GAP_S * kernels(Setup().deployment(STAGES))


def test_hand_offs_over_a_share_of_an_adapter() -> None:
    slow = replace(Setup(), adapter_share=1 / 8).deployment(STAGES).hardware.internode_bandwidth_bytes_per_s
    assert slow == Setup().deployment(STAGES).hardware.internode_bandwidth_bytes_per_s / 8
    assert FLOOR in changed()


def test_figures(runs: dict[str, RunRecord]) -> None:
    bubbles, timeline = bubble_panel(runs, 6.29), timeline_panel(runs)
    done = completion_panel(runs, {ORCA: 1.91, TP: 1.48})
    assert bubbles.caption.endswith("x apart, the published ones 6.29x.")
    assert len({bubbles.name, timeline.name, done.name}) == 3
    assert [trace.name for trace in bubbles.figure.data] == [ORCA, SARATHI]
    (points,) = [trace for trace in done.figure.data if trace.name == "published"]
    assert list(points.x) == [1.91 * completion_s(runs[SARATHI]), 1.48 * completion_s(runs[SARATHI])]
    assert {len(set(trace.y)) for trace in timeline.figure.data} == {STAGES}
