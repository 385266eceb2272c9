"""The schedule of every policy is that of its plain rule, token for token."""

from __future__ import annotations

from itertools import pairwise, zip_longest

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oracle import ORACLES
from oracle.cases import WITH_PREEMPTION, cases, random_case
from oracle.loop import Loop, play
from oracle.records import Case, Iteration
from oracle.systems import OracleSystem, PolicySystem

from policies import POLICIES

SEEDS = range(100)

small_cases = settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def same_schedule(case: Case) -> None:
    """Compare event by event: batches, their aggregates, queues, blocks, gaps; then what each request got."""
    policy, oracle = PolicySystem.of(case), OracleSystem(case)
    for seen, expected in zip_longest(Loop(policy, case), Loop(oracle, case)):
        assert seen == expected
    assert policy.outcomes() == oracle.outcomes()


def test_every_policy_has_an_oracle() -> None:
    assert ORACLES.keys() == POLICIES.keys()


@pytest.mark.parametrize("policy", POLICIES)
@small_cases
@given(data=st.data())
def test_small_cases(policy: str, data: st.DataObject) -> None:
    same_schedule(data.draw(cases(policy)))


@pytest.mark.parametrize("policy", POLICIES)
def test_larger_cases(policy: str) -> None:
    for seed in SEEDS:
        same_schedule(random_case(policy, seed))


@pytest.mark.parametrize("policy", POLICIES)
def test_with_cancelled_and_stopped_requests(policy: str) -> None:
    for seed in SEEDS[:60]:
        same_schedule(random_case(policy, seed, cancels=0.05, stops=0.2))


@pytest.mark.parametrize("policy", POLICIES)
def test_one_long_saturated_run(policy: str) -> None:
    same_schedule(random_case(policy, 1, requests=150, stages=1, eagerness=1.0))


@pytest.mark.parametrize("policy", POLICIES)
def test_the_cases_reach_what_they_are_for(policy: str) -> None:
    """Without this, an easy generator would let everything above pass."""
    preemptions = hits = decodes_left_out = together_in_flight = 0
    for seed in SEEDS[:40]:
        case = random_case(policy, seed)
        system, events = play(case)
        preemptions += sum(outcome.preemptions for outcome in system.outcomes())
        hits += sum(outcome.cached_tokens for outcome in system.outcomes())
        batches = [event for event in events if isinstance(event, Iteration)]
        share = max(1, case.settings["max_num_seqs"] // case.stages)
        decodes_left_out += sum(batch.decode_count == share < batch.residents for batch in batches)
        together_in_flight += sum(
            isinstance(one, Iteration) and isinstance(next_, Iteration) for one, next_ in pairwise(events)
        )
    if policy == "slack":
        assert preemptions > 0, "it looks ahead, and so has few"
    else:
        assert (preemptions > 50) == (policy in WITH_PREEMPTION)
    assert (hits > 100) == (policy == "vllm-v1")
    assert decodes_left_out > 50
    assert together_in_flight > 50
