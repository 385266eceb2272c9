"""Pipeline bubbles, request by request, against a plain account of who was in which batch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from policies import POLICIES, Policy, choose
from policies.batch import Batch
from simulator.bubble_ledger import PENDING, BubbleLedger
from simulator.flight import Flight
from simulator.simulation import Scenario, simulate
from traces.bubbles import batch_bubbles
from traces.run_record import RunRecord, read_run
from traces.utilisation import stage_bubbles
from traces.workload import Workload

Play = Callable[..., tuple[RunRecord, list[list[int]]]]


@pytest.fixture
def play(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    random_workload: Callable[..., Workload],
    paper_scenario: Callable[..., Scenario],
) -> Play:
    """Simulate a policy; return the run, and the requests of each batch, as they were while it was in flight."""
    held: list[list[int]] = []
    schedule = Policy.schedule

    def noted(policy: Policy, now_s: float) -> Batch | None:
        batch = schedule(policy, now_s)
        if batch is not None:
            sequences = [*batch.decode_sequences(), *(chunk.sequence for chunk in batch.chunks)]
            held.append([sequence.request_id for sequence in sequences])
        return batch

    monkeypatch.setattr(Policy, "schedule", noted)

    def run(name: str, *, stages: int, blocks: int = 2000) -> tuple[RunRecord, list[list[int]]]:
        simulate(paper_scenario(random_workload(80), blocks=blocks, stages=stages), choose(name), tmp_path / name)
        return read_run(tmp_path / name), held

    return run


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize(("stages", "blocks"), [(2, 2000), (4, 130)])
def test_each_request_pays_for_the_batches_that_held_it(name: str, stages: int, blocks: int, play: Play) -> None:
    run, held = play(name, stages=stages, blocks=blocks)
    bubbles = batch_bubbles(run, 0).sum(axis=1)
    paid = np.zeros(len(run.requests))
    for requests, bubble_s in zip(held, bubbles.tolist(), strict=True):
        for request in requests:
            paid[request] += bubble_s
    assert paid.max() > 0.1
    np.testing.assert_allclose(run.requests.bubble_s, paid, rtol=1e-9, atol=1e-12)
    sizes = run.iterations.chunks + run.iterations.decodes
    assert run.requests.bubble_s.sum() == pytest.approx(float(bubbles @ sizes))


@pytest.mark.parametrize("name", ["orca", "sarathi-serve"])
def test_bubbles_of_batches_are_those_of_the_stages(name: str, play: Play) -> None:
    run, _ = play(name, stages=3)
    stages = stage_bubbles(run)
    assert [stage.in_flight_s for stage in stages] == pytest.approx(batch_bubbles(run, 0).sum(axis=0).tolist())
    assert sum(stage.in_flight_s for stage in stages) > 1.0


def test_one_stage_has_none(play: Play) -> None:
    run, _ = play("sarathi-serve", stages=1)
    assert not run.requests.bubble_s.any()


def test_by_hand() -> None:
    """On two stages and two replicas, with a batch that makes the second stage wait, and one after a pause."""
    bubble_s = np.zeros(3)
    ledger = BubbleLedger(bubble_s)
    ledger.enter(flight([0], starts_s=[0.0, 3.0], times_s=[2.0, 2.0]))
    ledger.enter(flight([0, 1], starts_s=[2.0, 7.0], times_s=[4.0, 4.0]))  # stage 1 waits from 5 to 7
    ledger.enter(flight([2], starts_s=[20.0, 22.0], times_s=[1.0, 1.0]))  # stage 0 since 6, stage 1 since 11: none flew
    ledger.enter(flight([1], starts_s=[0.0, 5.0], times_s=[1.0, 1.0], replica=1))
    ledger.close()
    assert bubble_s.tolist() == [2.0, 2.0, (20.0 - 6.0 - 9.0) + (22.0 - 11.0 - 9.0)]


def flight(requests: list[int], *, starts_s: list[float], times_s: list[float], replica: int = 0) -> Flight:
    from policies import KVMemory, Sequence

    policy = choose("orca").build(KVMemory(blocks=9999), stages=2)
    batch = Batch()
    for request in requests:
        batch.prefill(Sequence(request, arrival_s=0.0, prompt_tokens=5, output_tokens=5), 5)
    return Flight(batch, policy, replica, starts_s, times_s, [starts_s[-1] + times_s[-1]])


def test_more_than_are_settled_at_once() -> None:
    bubble_s = np.zeros(1)
    ledger = BubbleLedger(bubble_s)
    for number in range(PENDING + 11):
        ledger.enter(flight([0], starts_s=[4.0 * number, 4.0 * number + 2.0], times_s=[1.0, 1.5]))
    ledger.close()
    ledger.close()
    assert bubble_s[0] == pytest.approx((PENDING + 10) * (4.0 - 1.0 - 0.5 + 4.0 - 1.5 - 0.5))
