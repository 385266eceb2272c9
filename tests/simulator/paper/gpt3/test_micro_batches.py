"""Micro-batches that stay together, and the bubbles of their requests."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from policies.batch import Batch
from policies.policy import Policy
from simulator.paper.gpt3.setup import CHUNK, LONGEST, STAGES, Setup
from simulator.simulation import simulate_in_memory
from traces.bubbles import batch_bubbles
from traces.run_record import RunRecord

REQUESTS = 300
Held = list[list[int]]


def play(monkeypatch: pytest.MonkeyPatch, setup: Setup, chunk: int) -> tuple[RunRecord, Held]:
    """Return a pipelined run, and the requests of each of its batches, decodes first."""
    held: Held = []
    schedule = Policy.schedule

    def noted(policy: Policy, now_s: float) -> Batch | None:
        batch = schedule(policy, now_s)
        if batch is not None:
            sequences = [*batch.decode_sequences(), *(part.sequence for part in batch.chunks)]
            held.append([sequence.request_id for sequence in sequences])
        return batch

    with monkeypatch.context() as patch:
        patch.setattr(Policy, "schedule", noted)
        return setup.run(setup.choice(STAGES, chunk), STAGES), held


@pytest.mark.parametrize("chunk", [CHUNK, LONGEST])
def test_requests_decode_in_the_micro_batch_that_ended_their_prompt(
    chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, held = play(monkeypatch, Setup(requests=REQUESTS), chunk)
    decodes = run.iterations.decodes.tolist()
    places: dict[int, list[int]] = {}
    for place, (requests, count) in enumerate(zip(held, decodes, strict=True)):
        for request in requests[:count]:
            places.setdefault(request, []).append(place)
    apart: Counter[int] = Counter()
    for each in places.values():
        apart.update(np.diff(each).tolist())
    assert max(apart) <= STAGES
    assert apart[STAGES] > 0.9 * apart.total()
    assert max(map(len, held)) == Setup().batch_limit(STAGES)


def test_every_request_gets_its_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    setup = Setup(requests=REQUESTS)
    run, held = play(monkeypatch, setup, CHUNK)
    assert run.requests.generated_tokens.tolist() == setup.workload.output_tokens.tolist()
    assert run.iterations.prefill_tokens.sum() == setup.workload.prompt_tokens.sum()
    assert all(len(set(requests)) == len(requests) for requests in held)
    assert (run.iterations.prefill_tokens + run.iterations.decodes).max() == CHUNK


def test_a_request_pays_for_the_bubbles_before_its_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    run, held = play(monkeypatch, Setup(requests=REQUESTS), LONGEST)
    paid_s = np.zeros(REQUESTS)
    for requests, bubble_s in zip(held, batch_bubbles(run, 0).sum(axis=1).tolist(), strict=True):
        paid_s[requests] += bubble_s
    assert np.median(paid_s) > 1.0
    np.testing.assert_allclose(run.requests.bubble_s, paid_s, rtol=1e-9, atol=1e-9)


def test_formed_from_what_is_ready_requests_wander(monkeypatch: pytest.MonkeyPatch) -> None:
    apart = Setup(requests=REQUESTS, fixed=False)
    fixed, together = play(monkeypatch, Setup(requests=REQUESTS), LONGEST)[1], play(monkeypatch, apart, LONGEST)[1]
    assert fixed != together


def test_step_by_step_comes_to_the_same() -> None:
    setup = Setup(requests=100)
    choice = setup.choice(STAGES, CHUNK)
    scenario = setup.scenario(choice, STAGES)
    fast, slow = (simulate_in_memory(replace(scenario, step=step), choice) for step in (False, True))
    assert fast.requests.finished_s.tobytes() == slow.requests.finished_s.tobytes()
    assert fast.requests.bubble_s.tobytes() == slow.requests.bubble_s.tobytes()
    assert fast.iterations.stage_start_s.tobytes() == slow.iterations.stage_start_s.tobytes()
