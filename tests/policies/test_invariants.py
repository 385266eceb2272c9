"""What holds for every policy at any time: seats, budgets, order, lengths."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

import pytest
from oracle.cases import random_case
from oracle.loop import Event, Loop, play, watch
from oracle.records import Case, Iteration, Tokens
from oracle.systems import PolicySystem

from policies import POLICIES

SEEDS = range(12)

pytestmark = pytest.mark.parametrize("policy", POLICIES)


def batches(events: list[Event]) -> list[Iteration]:
    return [event for event in events if isinstance(event, Iteration)]


def budget(case: Case) -> int | None:
    """The most tokens of a batch, where the policy has a limit."""
    if case.policy == "hybrid-only":
        return case.max_model_len
    if case.policy == "sarathi":
        return int(case.settings["chunk_size"])
    if case.policy == "vllm":
        return case.settings["max_num_batched_tokens"] or case.max_model_len
    return case.settings.get("max_num_batched_tokens")


def test_every_request_finishes_with_exactly_its_output_length(policy: str) -> None:
    for seed in SEEDS:
        case = random_case(policy, seed)
        system, events = play(case)
        asked = {request.request_id: request.output_tokens for request in case.requests}
        sampled = Counter(number for batch in batches(events) for number in batch.sampled)
        finished = [number for event in events if isinstance(event, Tokens) for number in event.finished]
        assert sampled == asked
        assert {outcome.request_id: outcome.generated for outcome in system.outcomes()} == asked
        assert sorted(finished) == sorted(asked)
        assert sum(batch.outputs for batch in batches(events)) == sum(asked.values())


def test_every_token_but_the_first_closes_one_gap(policy: str) -> None:
    for seed in SEEDS:
        case = random_case(policy, seed)
        done = [event for event in play(case)[1] if isinstance(event, Tokens)]
        assert sum(count for event in done for _, count in event.gaps) == sum(
            request.output_tokens - 1 for request in case.requests
        )
        assert sum(len(event.started) for event in done) == len(case.requests)
        assert all(gap_s >= 0 and count > 0 for event in done for gap_s, count in event.gaps)


def test_the_gaps_of_a_request_add_up_to_the_time_between_its_first_and_last_token(policy: str) -> None:
    for seed in SEEDS:
        system, events = play(random_case(policy, seed))
        gaps_s = sum(gap_s * count for event in events if isinstance(event, Tokens) for gap_s, count in event.gaps)
        spans_s = sum(item.finished_s - item.first_token_s for item in system.served.values())
        assert gaps_s == pytest.approx(spans_s)


def test_moments_are_in_order(policy: str) -> None:
    for seed in SEEDS:
        for sequence in play(random_case(policy, seed))[0].served.values():
            assert sequence.arrival_s <= sequence.scheduled_s <= sequence.first_token_s <= sequence.finished_s


def test_tokens_stay_within_the_budget_unless_decodes_alone_exceed_it(policy: str) -> None:
    for seed in SEEDS:
        case = random_case(policy, seed)
        limit = budget(case)
        for batch in batches(play(case)[1]):
            assert batch.tokens == batch.decode_count + sum(tokens for _, tokens, _ in batch.chunks)
            if limit is not None:
                assert batch.tokens <= max(limit, batch.decode_count)
                assert policy != "vllm-v1" or batch.tokens <= limit


def test_no_chunk_is_empty_and_none_runs_past_its_prompt(policy: str) -> None:
    for seed in SEEDS:
        case = random_case(policy, seed)
        produced: Counter[int] = Counter()
        for batch in batches(play(case)[1]):
            for number, tokens, past in batch.chunks:
                assert tokens >= 1
                assert past >= 0
                assert past + tokens <= case.requests[number].prompt_tokens + produced[number]
            produced.update(batch.sampled)


def test_prompt_tokens_run_in_order_and_once_but_for_preemptions(policy: str) -> None:
    for seed in SEEDS:
        there: Counter[int] = Counter()
        restarts: Counter[int] = Counter()
        case = random_case(policy, seed)
        for system, event in watch(case):
            if not isinstance(event, Iteration):
                continue
            for number, tokens, past in event.chunks:
                sequence = system.served[number]
                if sequence.preemptions > restarts[number]:
                    assert past == 0 or (policy == "vllm-v1" and past % case.block_size == 0)
                else:
                    assert past == there.get(number, sequence.cached_tokens)
                there[number] = past + tokens
                restarts[number] = sequence.preemptions
            there.update(event.decodes)


def test_batches_seats_and_flights_are_within_their_limits(policy: str) -> None:
    for seed in SEEDS:
        case = random_case(policy, seed)
        for system, event in watch(case):
            flying = system.flights
            assert len(flying) == system.policy.in_flight <= case.stages
            assert sum(map(len, flying)) == len(set().union(*flying)), "a sequence in two batches"
            assert event.residents <= case.settings["max_num_seqs"]
            if isinstance(event, Iteration):
                seats = max(1, case.settings["max_num_seqs"] // case.stages)
                assert 0 < len(event.chunks) + len(event.decodes) == event.sequences <= seats


def test_the_same_case_gives_the_same_schedule(policy: str) -> None:
    for seed in SEEDS:
        case = random_case(policy, seed, cancels=0.02, stops=0.1)
        (one, events), (other, again) = play(case), play(case)
        assert events == again
        assert one.outcomes() == other.outcomes()


def test_a_policy_that_has_served_one_case_serves_the_next_alike(policy: str) -> None:
    """Nothing of the past is left but the prefix cache, which is off here, and what Slack has learned."""
    if policy == "slack":
        pytest.skip("learns from what it has served")
    for seed in SEEDS:
        case = random_case(policy, seed)
        if policy == "vllm-v1":
            case.settings["enable_prefix_caching"] = False
        later = replace(case, requests=tuple(replace(item, request_id=item.request_id + 100) for item in case.requests))
        system = PolicySystem.of(case)
        assert without_ids(Loop(system, case)) == without_ids(Loop(system, later))


def without_ids(events: Iterable[Event]) -> list[dict[str, float]]:
    return [{key: item for key, item in vars(event).items() if isinstance(item, int | float)} for event in events]
