"""Prompts on some replicas, decodes on others, KV over a link between them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from oracle.costs import PlainCosts

from policies import POLICIES, KVMemory, Policy, Sequence, choose
from simulator.cluster import Group
from simulator.failures import FailureSettings, Outage
from simulator.link import Link
from simulator.simulation import Scenario, simulate
from traces.run_record import RunRecord, read_run
from traces.workload import Workload

Apart = Callable[..., Scenario]
SMALL = {"vllm-v1": {"max_num_seqs": 64}}


def served(scenario: Scenario, folder: Path, name: str = "sarathi-serve", **settings: int) -> RunRecord:
    simulate(scenario, choose(name, **(SMALL.get(name, {}) | settings)), folder / name)
    return read_run(folder / name)


def requests(*lengths: tuple[int, int], gap_s: float = 0.0) -> Workload:
    prompts, outputs = np.array(lengths).T
    return Workload(
        name="by hand", arrival_s=gap_s * np.arange(len(lengths)), prompt_tokens=prompts, output_tokens=outputs
    )


@pytest.fixture
def apart(paper_group: Callable[..., Group], cluster_scenario: Callable[..., Scenario]) -> Apart:
    """One prefill and one decode replica (or more), over a link of 1 GB/s and 2 ms; a token's KV is 100 kB."""

    def make(
        workload: Workload,
        prefill: int = 1,
        decode: int = 1,
        failures: FailureSettings | None = None,
        *,
        stages: int = 1,
        blocks: int = 300,
    ) -> Scenario:
        groups = (
            paper_group(prefill, role="prefill", blocks=blocks, stages=stages),
            paper_group(decode, role="decode", blocks=blocks, stages=stages),
        )
        return cluster_scenario(workload, *groups, failures=failures)

    return make


def test_the_time_on_the_link_is_latency_and_bytes() -> None:
    assert Link(bandwidth_bytes_per_s=2e9, latency_s=0.5, kv_bytes_per_token=1000).time_s(4000) == 0.502


@pytest.mark.parametrize("name", POLICIES)
def test_two_requests_by_hand(name: str, tmp_path: Path, apart: Apart) -> None:
    """Prompts of 100 tokens take 20 ms each, KV 12 ms, decodes 10.1 ms; the second follows as the first has ended."""
    run = served(apart(requests((100, 3), (100, 3), gap_s=0.001)), tmp_path, name, max_num_seqs=8)
    got = run.requests
    np.testing.assert_allclose(got.first_token_s, [0.020, 0.040])
    np.testing.assert_allclose(got.transfer_s, [0.012, 0.012])
    np.testing.assert_allclose(got.finished_s, [0.032 + 2 * 0.0101, 0.0522 + 2 * 0.0101])
    np.testing.assert_array_equal(got.replica, [0, 0])
    np.testing.assert_array_equal(got.decode_replica, [1, 1])
    assert run.meta.link == {"bandwidth_bytes_per_s": 1e9, "latency_s": 0.002, "kv_bytes_per_token": 100_000}
    assert [group.role for group in run.meta.groups] == ["prefill", "decode"]
    gaps = np.repeat(run.iterations.gap_s, run.iterations.gap_count)
    np.testing.assert_allclose(np.sort(gaps), [0.0101, 0.0101, 0.0221, 0.0223], atol=1e-9)


def test_transfers_take_turns_on_the_link_and_blocks_are_held_until_they_are_over(tmp_path: Path, apart: Apart) -> None:
    """Two prompts of 100 in one batch end at 30 ms; the KV of the second waits for that of the first.

    The third needs the blocks of both: it begins when the second transfer is over, at 54 ms.
    """
    workload = requests((100, 2), (100, 2), (310, 2))
    run = served(apart(workload, blocks=21), tmp_path)
    np.testing.assert_allclose(run.requests.transfer_s, [0.012, 0.024, 0.033])
    np.testing.assert_allclose(run.requests.scheduled_s, [0.0, 0.0, 0.054])


def test_one_output_token_needs_no_decode_replica(tmp_path: Path, apart: Apart) -> None:
    run = served(apart(requests((100, 1), (50, 2))), tmp_path)
    assert run.requests.decode_replica.tolist() == [0, 1]
    assert run.requests.transfer_s[0] == 0 < run.requests.transfer_s[1]


def test_no_replica_does_the_work_of_the_other_kind(
    tmp_path: Path, apart: Apart, random_workload: Callable[..., Workload]
) -> None:
    workload = random_workload(100, rate_per_s=20.0)
    iterations = served(apart(workload, 2, 2, blocks=2000), tmp_path).iterations
    prefills = iterations.replica < 2
    assert iterations.decodes[prefills].sum() == 0
    assert iterations.prefill_tokens[prefills].sum() == workload.prompt_tokens.sum()
    assert iterations.prefill_tokens[~prefills].sum() == 0
    assert iterations.decodes[~prefills].sum() == (workload.output_tokens - 1).sum()


def test_what_is_preempted_on_a_decode_replica_is_computed_again_there(
    tmp_path: Path, apart: Apart, random_workload: Callable[..., Workload]
) -> None:
    workload = random_workload(150, rate_per_s=40.0)
    run = served(apart(workload, 2, 1, blocks=80), tmp_path)
    np.testing.assert_array_equal(run.requests.generated_tokens, workload.output_tokens)
    assert run.requests.preemptions.sum() > 0
    iterations = run.iterations
    assert iterations.prefill_tokens[iterations.replica == 2].sum() > 0


def test_a_transfer_to_a_replica_that_fails_begins_anew(tmp_path: Path, apart: Apart) -> None:
    """The prompt ends at 20 ms; its KV is on its way to replica 1 until that fails at 25 ms, then to 2 for 12 ms."""
    failures = FailureSettings(listed=(Outage(1, 0.025, 5.0),))
    run = served(apart(requests((100, 2)), 1, 2, failures), tmp_path)
    assert run.requests.decode_replica.tolist() == [2]
    np.testing.assert_allclose(run.requests.transfer_s, [0.017])
    np.testing.assert_allclose(run.requests.finished_s, [0.037 + 0.0101])
    assert run.requests.restarts.tolist() == [0], "its KV was not lost"


def test_a_transfer_waits_for_a_decode_replica_to_come_back(tmp_path: Path, apart: Apart) -> None:
    failures = FailureSettings(listed=(Outage(1, 0.010, 1.0),))
    run = served(apart(requests((100, 2)), 1, 1, failures), tmp_path)
    np.testing.assert_allclose(run.requests.finished_s, [1.010 + 0.012 + 0.0101])


def test_a_transfer_from_a_replica_that_fails_is_lost_with_its_kv(tmp_path: Path, apart: Apart) -> None:
    """The first token is out at 20 ms; replica 0 fails at 25 ms; 101 tokens are computed on replica 1 in 20.1 ms."""
    failures = FailureSettings(listed=(Outage(0, 0.025, 5.0),))
    run = served(apart(requests((100, 3)), 2, 1, failures), tmp_path)
    np.testing.assert_allclose(run.requests.first_token_s, [0.020])
    np.testing.assert_allclose(run.requests.transfer_s, [0.0121])
    np.testing.assert_allclose(run.requests.finished_s, [0.025 + 0.0201 + 0.0121 + 0.0101])
    assert run.requests.restarts.tolist() == [1]
    assert run.meta.failures[0].tokens == 100


def brought(request: int, tokens: int, output_tokens: int = 10) -> Sequence:
    """Return a sequence whose prompt was computed elsewhere."""
    sequence = Sequence(request, arrival_s=0.0, prompt_tokens=tokens, output_tokens=output_tokens)
    sequence.computed, sequence.generated = tokens, 1
    sequence.first_token_s = sequence.last_token_s = 0.5
    return sequence


def fresh(request: int, tokens: int) -> Sequence:
    return Sequence(request, arrival_s=0.0, prompt_tokens=tokens, output_tokens=10)


def policy(name: str, *, blocks: int = 300, max_num_seqs: int = 8) -> Policy:
    memory = KVMemory(blocks=blocks, max_model_len=256)
    return choose(name, max_num_seqs=max_num_seqs).build(memory, costs=PlainCosts(base_s=0.01, token_s=1e-4))


@pytest.mark.parametrize("name", POLICIES)
def test_kv_that_came_is_decoded_before_younger_prompts_and_after_older_ones(name: str) -> None:
    one = policy(name, max_num_seqs=1)
    one.add(fresh(5, 40))
    one.add(brought(3, 40))
    batch = one.schedule(1.0)
    assert batch is not None
    assert (batch.decodes, batch.prefill_tokens) == (1, 0)
    other = policy(name, max_num_seqs=1)
    other.add(fresh(2, 40))
    other.add(brought(3, 40))
    batch = other.schedule(1.0)
    assert batch is not None
    assert (batch.decodes, batch.prefill_tokens) == (0, 40)


@pytest.mark.parametrize("name", POLICIES)
def test_kv_that_came_waits_for_blocks(name: str) -> None:
    blocks = 20 if name in ("faster-transformer", "orca", "sarathi") else 12
    tight = policy(name, blocks=blocks)
    tight.add(brought(0, 100))
    tight.add(brought(1, 100, output_tokens=5))
    first = tight.schedule(1.0)
    assert first is not None
    assert first.decodes == 1
    assert len(tight.incoming) == 1
    while tight.has_work:
        done = tight.complete(first, 2.0)
        first = tight.schedule(2.0) or first
        if done.finished:
            break
    assert not tight.incoming
    assert first.decodes == 1


def test_a_held_sequence_keeps_its_blocks_until_it_is_let_go() -> None:
    mine = policy("vllm-v1")
    sequence = fresh(0, 100)
    mine.add(sequence)
    batch = mine.schedule(0.0)
    assert batch is not None
    mine.complete(batch, 1.0)
    mine.hold(sequence)
    assert mine.schedule(1.0) is None
    assert (mine.pool.used, mine.residents) == (7, 1)
    everyone, lost = mine.evacuate([])
    assert (everyone, lost, sequence.left) == ([sequence], 100, 101)
