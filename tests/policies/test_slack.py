"""Slack keeps token deadlines, lets short prompts pass long ones for a while, and looks ahead for blocks."""

from __future__ import annotations

from collections.abc import Sequence as Listing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle.costs import PlainCosts
from oracle.job import Request

from policies import Batch, KVMemory, PolicyChoice, Sequence, choose
from policies.policy import Policy
from policies.slack import Slack
from traces.errors import InputError

COSTS = PlainCosts(base_s=0.01, token_s=1e-4, context_s=1e-6, upper=1.0)
TBT_S = 0.1


def build(costs: PlainCosts = COSTS, *, stages: int = 1, blocks: int = 10_000, **given: float) -> Policy:
    memory = KVMemory(blocks=blocks, block_size=16, max_model_len=8192)
    return choose("slack", **{"tbt_s": TBT_S, "max_num_batched_tokens": 4096, **given}).build(
        memory, stages=stages, costs=costs
    )


def serve(
    policy: Policy, requests: Listing[Request], *, slower: float = 1.0, costs: PlainCosts = COSTS
) -> tuple[dict[int, Sequence], list[tuple[Batch, float]], list[float]]:
    """Serve requests on one stage that takes ``slower`` times what the cost model says.

    Returns the sequences, the batches with their ends, and the gaps between tokens.
    """
    served: dict[int, Sequence] = {}
    ran, gaps, upcoming, now_s = [], [], sorted(requests, key=lambda each: each.arrival_s), 0.0
    while upcoming or policy.has_work:
        while upcoming and upcoming[0].arrival_s <= now_s:
            request = upcoming.pop(0)
            served[request.request_id] = Sequence(
                request.request_id,
                arrival_s=request.arrival_s,
                prompt_tokens=request.prompt_tokens,
                output_tokens=request.output_tokens,
            )
            policy.add(served[request.request_id])
        batch = policy.schedule(now_s)
        if batch is None:
            now_s = upcoming[0].arrival_s
            continue
        now_s += slower * costs.iteration_time(batch)
        gaps += [gap_s for gap_s, count in policy.complete(batch, now_s).gaps for _ in range(count)]
        ran.append((batch, now_s))
    return served, ran, gaps


requests_of = st.lists(
    st.tuples(st.floats(0, 3), st.integers(1, 4000), st.integers(1, 60)), min_size=1, max_size=25
).map(lambda each: [Request(number, *values) for number, values in enumerate(sorted(each))])


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(requests=requests_of)
def test_every_token_comes_in_time_where_the_cost_model_is_right(requests: list[Request]) -> None:
    served, _, gaps = serve(build(max_num_seqs=16), requests)
    assert all(gap_s <= TBT_S * (1 + 1e-9) for gap_s in gaps)
    assert [served[each.request_id].generated for each in requests] == [each.output_tokens for each in requests]


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(requests=requests_of, patience=st.sampled_from([0.0, 3.0, 20.0]))
def test_nobody_passes_who_comes_after_one_has_waited_long_enough(requests: list[Request], patience: float) -> None:
    policy = build(max_num_seqs=4, ttft_s=0.5, patience=patience)
    served, _, _ = serve(policy, requests)
    for early in requests:
        longest_s = COSTS.seconds(early.prompt_tokens + 64, 0, 0)
        until_s = early.arrival_s + max(0.5, patience * longest_s) + 1e-6
        for late in requests:
            if late.arrival_s > until_s:
                assert served[late.request_id].scheduled_s >= served[early.request_id].scheduled_s


def test_a_short_prompt_passes_a_long_one_that_came_before() -> None:
    long, short = Request(0, 0.0, 6000, 5), Request(1, 0.05, 64, 5)
    served, _, _ = serve(build(), [Request(2, 0.0, 10, 50), long, short])
    assert served[1].first_token_s < served[0].first_token_s
    served, _, _ = serve(build(ttft_s=100.0), [Request(2, 0.0, 10, 50), long, short])
    assert served[1].first_token_s >= served[0].first_token_s


def test_an_iteration_is_filled_to_the_deadline() -> None:
    _, ran, gaps = serve(build(max_num_seqs=8), [Request(0, 0.0, 10, 40), *(Request(n, 0.01, 4000, 2) for n in (1, 2))])
    assert max(gaps) > 0.93 * TBT_S
    full = [batch.tokens for batch, _ in ran if batch.decodes and batch.prefill_tokens > 64]
    assert all(tokens % 64 == 0 for tokens in full[:-2])


def test_it_learns_that_a_machine_is_slower_than_predicted() -> None:
    requests = [Request(0, 0.0, 10, 1500), *(Request(n, 0.2 * n, 3000, 2) for n in range(1, 90))]
    _, _, gaps = serve(build(), requests, slower=1.3)
    late = [gap_s > TBT_S * (1 + 1e-9) for gap_s in gaps]
    assert any(late[:40]), "a band without width lets the first few be late"
    assert not any(late[60:])


def test_it_learns_that_a_band_was_too_wide() -> None:
    cautious = PlainCosts(base_s=0.01, token_s=1e-4, context_s=1e-6, upper=1.5)
    requests = [Request(0, 0.0, 10, 1500), *(Request(n, 0.2 * n, 3000, 2) for n in range(1, 90))]
    _, ran, _ = serve(build(cautious), requests, costs=cautious)
    filled = [cautious.iteration_time(batch) for batch, _ in ran if batch.decodes and batch.prefill_tokens > 256]
    assert max(filled[:20]) < 0.7 * TBT_S
    assert max(filled[-20:]) > 0.93 * TBT_S


def test_prompts_go_on_where_decodes_alone_are_late() -> None:
    served, _, gaps = serve(build(tbt_s=0.001), [Request(0, 0.0, 10, 3000), Request(1, 0.1, 100, 2)])
    assert min(gaps) > 0.001
    assert served[1].finished_s < served[0].finished_s


def test_a_target_out_of_reach_does_not_starve_prompts() -> None:
    cheap = PlainCosts(base_s=0.01, token_s=2e-5, context_s=0.0, upper=1.0)
    requests = [Request(n, 0.0, 10, 400) for n in range(8)] + [Request(8, 0.1, 3000, 2)]
    _, ran, _ = serve(build(cheap, tbt_s=0.001), requests, costs=cheap)
    beside = [batch for batch, _ in ran if batch.decodes == 8 and batch.prefill_tokens]
    assert len(beside) > 5
    shares = [cheap.iteration_time(batch) / cheap.seconds(8, 0, 0) for batch in beside[:-1]]
    assert all(1.1 < share <= 1.25 for share in shares)


def test_a_batch_without_decodes_leaves_half_of_the_time_to_whoever_comes() -> None:
    _, ran, _ = serve(build(ttft_s=0.2), [Request(0, 0.0, 5000, 1)])
    assert len(ran) > 4
    assert all(COSTS.iteration_time(batch) <= 0.1 for batch, _ in ran)


def test_residents_keep_room_to_grow() -> None:
    """Outputs much longer than prompts: who admits by prompts alone has to preempt."""
    requests = [Request(n, 0.05 * n, 30, 400) for n in range(80)]
    memory = {"blocks": 200, "max_num_seqs": 64}
    served, _, _ = serve(build(**memory), requests)
    preempted = sum(sequence.preemptions for sequence in served.values())
    eager = choose("sarathi-serve", max_num_seqs=64, max_num_batched_tokens=512).build(
        KVMemory(blocks=200, block_size=16, max_model_len=8192)
    )
    others, _, _ = serve(eager, requests)
    assert preempted < 0.5 * sum(sequence.preemptions for sequence in others.values())


@pytest.mark.parametrize("stages", [2, 4])
def test_with_pipeline_stages_a_batch_takes_its_share_of_the_time(stages: int) -> None:
    policy = build(stages=stages, max_num_seqs=32)
    policy.add(Sequence(0, arrival_s=0.0, prompt_tokens=10, output_tokens=50))
    first = policy.schedule(0.0)
    assert first is not None
    policy.complete(first, 0.05)
    policy.add(Sequence(1, arrival_s=0.05, prompt_tokens=8000, output_tokens=50))
    batch = policy.schedule(0.05)
    assert batch is not None
    assert (batch.decodes, len(batch.chunks)) == (1, 1)
    assert 0.6 * TBT_S < stages * COSTS.iteration_time(batch, stages - 1) <= TBT_S


def test_a_fresh_one_knows_the_costs_and_nothing_else() -> None:
    policy = build()
    serve(policy, [Request(0, 0.0, 100, 5)])
    again = policy.fresh()
    assert isinstance(again, Slack)
    assert again.costs is COSTS
    assert not again.has_work


def test_without_a_cost_model_there_is_one_clear_error() -> None:
    memory = KVMemory(blocks=10)
    with pytest.raises(InputError, match=r"^policy slack: .* no(ne)? .*; expected --profile") as error:
        choose("slack").build(memory)
    assert "\n" not in str(error.value)
    assert not PolicyChoice(name="orca", settings=choose("orca").settings).needs_costs


@pytest.mark.parametrize("setting", [{"tbt_s": 0.0}, {"tbt_s": float("inf")}, {"ttft_s": -1.0}, {"patience": -1.0}])
def test_bad_settings_are_refused(setting: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(setting))):
        choose("slack", **setting)
