from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from traces.goodput import parse_goodput
from traces.metrics import measure
from traces.step_function import blocks_in_use, queue_length, residents

SEEDS = st.integers(0, 2**32)


def expected_percentiles(samples):
    return [np.mean(samples), *np.percentile(samples, [50, 90, 95, 99]), np.max(samples)]


def percentiles(made):
    return [made.mean, made.p50, made.p90, made.p95, made.p99, made.max]


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, replicas=st.integers(1, 3))
def test_latencies_follow_from_the_time_of_every_token(token_times, seed, replicas):
    toy = token_times(seed, replicas)
    metrics = measure(toy.record())
    tokens = [np.array(times) for times in toy.tokens]
    first = np.array([times[0] for times in tokens])
    last = np.array([times[-1] for times in tokens])
    gaps = np.concatenate([np.diff(times) for times in tokens])
    several = np.array([len(times) > 1 for times in tokens])
    tpot = [(times[-1] - times[0]) / (len(times) - 1) for times in tokens if len(times) > 1]
    np.testing.assert_allclose(percentiles(metrics.ttft_s), expected_percentiles(first - toy.arrival_s))
    np.testing.assert_allclose(percentiles(metrics.end_to_end_s), expected_percentiles(last - toy.arrival_s))
    delay = np.array(toy.scheduled) - toy.arrival_s
    np.testing.assert_allclose(percentiles(metrics.scheduling_delay_s), expected_percentiles(delay))
    assert metrics.tbt_s.count == len(gaps)
    assert metrics.tpot_s.count == several.sum()
    if len(gaps):
        np.testing.assert_allclose(percentiles(metrics.tbt_s), expected_percentiles(gaps))
        np.testing.assert_allclose(percentiles(metrics.tpot_s), expected_percentiles(tpot))
    makespan = last.max() - toy.arrival_s[0]
    assert math.isclose(metrics.makespan_s, makespan)
    assert math.isclose(metrics.throughput.output_tokens_per_s, sum(map(len, tokens)) / makespan)
    assert math.isclose(metrics.throughput.requests_per_s, len(tokens) / makespan)
    everything = sum(map(len, tokens)) + 10 * len(tokens)
    assert math.isclose(metrics.throughput.total_tokens_per_s, everything / makespan)


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, replicas=st.integers(1, 3))
def test_the_queue_is_everyone_who_arrived_and_was_not_scheduled(token_times, seed, replicas):
    toy = token_times(seed, replicas)
    run = toy.record()
    moments = np.random.default_rng(seed).uniform(0, run.end_s, 50)
    queue = queue_length(run)
    index = np.searchsorted(queue.times_s, moments, side="right") - 1
    got = np.append(queue.values, 0.0)[index]
    expected = [sum(a <= moment < s for a, s in zip(toy.arrival_s, toy.scheduled, strict=True)) for moment in moments]
    assert got.tolist() == expected
    waited = float((np.array(toy.scheduled) - toy.arrival_s).sum())
    metrics = measure(run)
    assert math.isclose(metrics.queue_length.mean * metrics.makespan_s, waited, abs_tol=1e-9)


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, replicas=st.integers(1, 3))
def test_the_means_of_bins_add_up_to_the_mean_of_all(token_times, seed, replicas):
    run = token_times(seed, replicas).record()
    for function in (queue_length(run), residents(run), blocks_in_use(run)):
        edges = np.linspace(function.times_s[0], run.end_s, 8)
        means = function.means(edges)
        assert math.isclose(means.mean(), function.distribution().mean, abs_tol=1e-9)
        assert (means >= 0).all()


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, replicas=st.integers(1, 3))
def test_stalls_are_the_long_gaps_behind_prompts(token_times, seed, replicas):
    toy = token_times(seed, replicas)
    run = toy.record()
    gaps = [
        (before, after, toy.home[index])
        for index, times in enumerate(toy.tokens)
        for before, after in itertools.pairwise(times)
    ]
    stalls = measure(run).stalls
    if not gaps:
        assert stalls.count == 0
        return
    threshold = 4 * np.median([after - before for before, after, _ in gaps])
    found = {}
    for before, after, home in gaps:
        between = [row for row in toy.iterations if row["replica"] == home and before + 1e-9 < row["end_s"] <= after]
        if after - before > threshold and any(row["prefill_tokens"] for row in between):
            found.setdefault((home, after), []).append(after - before)
    assert math.isclose(stalls.threshold_s, threshold)
    assert stalls.count == len(found)
    assert stalls.gaps == sum(map(len, found.values()))
    assert math.isclose(stalls.total_s, sum(map(max, found.values())), abs_tol=1e-12)
    assert math.isclose(stalls.longest_s, max(map(max, found.values()), default=0.0))


def decode(start, end, **more):
    return {"start_s": start, "end_s": end, "decodes": 2, "outputs": 2, **more}


def test_a_whole_prefill_between_decodes_is_a_stall(make_run):
    steady = [decode(0.1 * i, 0.1 * i + 0.1, gaps=[(0.1, 2)]) for i in range(1, 20)]
    prompt = {"start_s": 2.0, "end_s": 2.9, "prefill_tokens": 500, "chunks": 1, "outputs": 1}
    run = make_run(
        requests=[{"first_token_s": 0.2, "finished_s": 3.0, "generated_tokens": 21, "scheduled_s": 0.0}],
        iterations=[*steady, prompt, decode(2.9, 3.0, gaps=[(1.0, 2), (0.1, 1)])],
    )
    stalls = measure(run).stalls
    assert (stalls.count, stalls.gaps, stalls.longest_s, stalls.total_s) == (1, 2, 1.0, 1.0)
    assert (stalls.whole_share, stalls.mean_prefill_tokens) == (1.0, 500.0)
    assert stalls.threshold_s == pytest.approx(0.4)


def test_a_long_gap_without_prompts_is_no_stall(make_run):
    steady = [decode(0.1 * i, 0.1 * i + 0.1, gaps=[(0.1, 2)]) for i in range(1, 20)]
    run = make_run(requests=[{}], iterations=[*steady, decode(2.9, 3.0, gaps=[(1.0, 2)])])
    assert measure(run).stalls.count == 0
    assert measure(run).tbt_s.max == 1.0


def test_kv_use_is_weighted_by_time_and_empty_while_nothing_is_there(make_run):
    run = make_run(
        requests=[
            {"arrival_s": 0.0, "scheduled_s": 0.0, "first_token_s": 1.0, "finished_s": 1.0},
            {"arrival_s": 5.0, "scheduled_s": 5.0, "first_token_s": 7.0, "finished_s": 8.0},
        ],
        iterations=[
            {"start_s": 0.0, "end_s": 1.0, "blocks_used": 40, "prefill_tokens": 10},
            {"start_s": 5.0, "end_s": 7.0, "blocks_used": 60, "prefill_tokens": 10},
            {"start_s": 7.0, "end_s": 8.0, "blocks_used": 80, "decodes": 1},
        ],
    )
    use = measure(run).kv_use
    assert use.mean == pytest.approx((0.4 * 1 + 0.6 * 2 + 0.8 * 1) / 8)
    assert (use.p50, use.p90, use.max) == (0.0, 0.8, 0.8)


def test_mfu_counts_wall_time_and_busy_time(make_run):
    run = make_run(
        requests=[{"arrival_s": 0.0}],
        iterations=[
            {"start_s": 0.0, "end_s": 1.0, "flops": 5e11, "prefill_tokens": 10},
            {"start_s": 3.0, "end_s": 4.0, "flops": 1e11, "decodes": 1},
        ],
    )
    mfu = measure(run).mfu
    assert (mfu.wall, mfu.busy) == (pytest.approx(0.15), pytest.approx(0.3))
    assert (mfu.iteration.mean, mfu.iteration.max) == (pytest.approx(0.3), pytest.approx(0.5))
    assert math.isnan(measure(make_run(requests=[{}], groups=[{"peak_flops": None}])).mfu.wall)


def pipelined(start, times, hand_off=0.0):
    starts = [start]
    for time in times[:-1]:
        starts.append(starts[-1] + time + hand_off)
    end = starts[-1] + times[-1]
    return {"start_s": start, "end_s": end, "stage_start_s": starts, "stage_time_s": times}


def test_bubbles_are_idle_time_between_first_and_last_work(make_run):
    run = make_run(
        requests=[{}],
        iterations=[
            pipelined(0.0, [1.0, 3.0]),
            {**pipelined(1.0, [1.0, 1.0], hand_off=2.0), "decodes": 1},
            pipelined(9.0, [1.0, 2.0]),
        ],
        groups=[{"stages": 2}],
    )
    first, second = measure(run).bubbles
    assert (first.busy_s, first.idle_s, first.in_flight_s) == (3.0, 7.0, 3.0)
    assert first.idle_share == pytest.approx(0.7)
    assert (second.stage, second.busy_s, second.idle_s, second.in_flight_s) == (1, 6.0, 5.0, 1.0)


def test_batches_take_their_share_of_stage_time(make_run):
    run = make_run(
        requests=[{}],
        iterations=[
            {"start_s": 0.0, "end_s": 1.0, "prefill_tokens": 512},
            {"start_s": 1.0, "end_s": 3.0, "prefill_tokens": 500, "decodes": 12},
            {"start_s": 3.0, "end_s": 7.0, "decodes": 12},
            {"start_s": 9.0, "end_s": 10.0, "decodes": 4},
        ],
    )
    batch = measure(run).batch
    shares = (batch.prefill_share, batch.mixed_share, batch.decode_share, batch.idle_share)
    assert shares == pytest.approx((0.1, 0.2, 0.5, 0.2))
    assert (batch.tokens.max, batch.prefill_tokens.mean, batch.decodes.mean) == (512, 253, 7)


def served(replica=0, arrival_s=0.0, finished_s=1.0, **more):
    times = {"scheduled_s": arrival_s, "first_token_s": finished_s, "finished_s": finished_s, "generated_tokens": 1}
    return {"replica": replica, "arrival_s": arrival_s, **times, **more}


def test_unequal_replicas_count_by_what_each_of_them_has(make_run):
    run = make_run(
        requests=[served(0), served(1, finished_s=2.0)],
        iterations=[
            {**pipelined(0.0, [0.5, 0.5]), "prefill_tokens": 10, "flops": 1e12, "blocks_used": 50},
            {"replica": 1, "start_s": 0.0, "end_s": 2.0, "prefill_tokens": 10, "flops": 1e12, "blocks_used": 10},
        ],
        groups=[{"stages": 2, "peak_flops": 4e12}, {"kv_blocks": 60}],
    )
    metrics = measure(run)
    assert metrics.batch.prefill_share == pytest.approx((0.5 + 0.5 + 2.0) / (2.0 * 3))
    assert metrics.batch.idle_share == pytest.approx(0.5)
    assert metrics.mfu.wall == pytest.approx(2e12 / (2.0 * 5e12))
    assert metrics.mfu.busy == pytest.approx(2e12 / (1.0 * 2e12 + 2.0 * 1e12))
    assert metrics.mfu.iteration.mean == pytest.approx((0.5 + 0.5) / 2)
    assert metrics.kv_use.mean == pytest.approx((60 + 10) / 2 / 160)
    assert [(each.replica, each.stage) for each in metrics.bubbles] == [(0, 0), (0, 1), (1, 0)]


def test_a_failed_replica_is_down_and_neither_idle_nor_full(make_run):
    run = make_run(
        requests=[served(0, finished_s=8.0, decode_replica=1, restarts=1), served(0, 9.0, 10.0)],
        iterations=[
            {"start_s": 0.0, "end_s": 1.0, "prefill_tokens": 10, "blocks_used": 50, "waiting": 3},
            {"replica": 1, "start_s": 6.0, "end_s": 8.0, "prefill_tokens": 10, "blocks_used": 50},
            {"start_s": 9.0, "end_s": 10.0, "prefill_tokens": 10, "blocks_used": 100},
        ],
        groups=[{"count": 2}],
        failures=[
            {"replica": 0, "failed_s": 2.0, "recovered_s": 5.0, "requests": 4, "tokens": 70},
            {"replica": 0, "failed_s": 4.0, "recovered_s": 6.0, "requests": 0, "tokens": 0},
            {"replica": 1, "failed_s": 9.0, "recovered_s": None, "requests": 1, "tokens": 5},
            {"replica": 1, "failed_s": 99.0, "recovered_s": None, "requests": 0, "tokens": 0},
        ],
    )
    metrics = measure(run)
    cost = metrics.failures
    assert (cost.count, cost.downtime_s, cost.requests, cost.tokens) == (4, 5.0, 5, 75)
    assert (metrics.restarts, metrics.restarted_requests) == (1, 1)
    assert (metrics.batch.down_share, metrics.batch.idle_share) == (pytest.approx(5 / 20), pytest.approx(11 / 20))
    assert metrics.kv_use.mean == pytest.approx((50 * 2.0 + 50 * 2.0 + 100 * 1.0) / 10 / 200)
    assert metrics.queue_length.mean == pytest.approx((3 * 2.0 + 1 * 4.0) / 10)
    first = metrics.bubbles[0]
    assert (first.busy_s, first.idle_s, first.in_flight_s) == (2.0, 4.0, 0.0)


def test_requests_that_move_between_replicas_hold_blocks_on_one_after_the_other(make_run):
    moved = {"decode_replica": 1, "transfer_s": 0.5, "first_token_s": 1.0, "generated_tokens": 2}
    run = make_run(
        requests=[served(0, finished_s=2.5, **moved), served(0, 4.0, 5.0)],
        iterations=[
            {"start_s": 0.0, "end_s": 1.0, "prefill_tokens": 10, "blocks_used": 10},
            {"replica": 1, "start_s": 1.5, "end_s": 2.5, "decodes": 1, "blocks_used": 30, "gaps": [(1.5, 1)]},
            {"start_s": 4.0, "end_s": 5.0, "prefill_tokens": 10, "blocks_used": 20},
        ],
        groups=[{"role": "prefill"}, {"role": "decode"}],
    )
    metrics = measure(run)
    assert (metrics.transfer_s.count, metrics.transfer_s.max) == (1, 0.5)
    values = blocks_in_use(run).means(np.arange(0.0, 5.5, 0.5))
    np.testing.assert_allclose(values, [10, 10, 10, 30, 30, 0, 0, 0, 20, 20])
    assert metrics.queue_length.max == 0


def test_a_request_that_moved_nobody_knows_when_waits_where_it_began(make_run):
    run = make_run(
        requests=[served(0, finished_s=4.0), {"arrival_s": 1.0, "decode_replica": 1}],
        iterations=[{"start_s": 0.0, "end_s": 4.0, "prefill_tokens": 10, "blocks_used": 10}],
        groups=[{"count": 2}],
    )
    metrics = measure(run)
    assert metrics.queue_length.mean == pytest.approx(3 / 4)
    assert metrics.kv_use.mean == pytest.approx(10 / 200)


def test_bubbles_of_requests_count_where_there_are_stages(make_run):
    requests = [served(bubble_s=0.3), served(bubble_s=0.1), {"bubble_s": 0.9}]
    assert measure(make_run(requests=requests, groups=[{"stages": 2}])).bubble_s.mean == pytest.approx(0.2)
    assert measure(make_run(requests=requests)).bubble_s.count == 0


def test_requests_that_never_finish_are_counted_apart(make_run):
    run = make_run(
        requests=[
            {"scheduled_s": 0.5, "first_token_s": 1.0, "finished_s": 3.0, "generated_tokens": 5},
            {"scheduled_s": 2.0, "first_token_s": 4.0, "generated_tokens": 2, "preemptions": 3},
            {},
        ],
        iterations=[{"start_s": 0.0, "end_s": 5.0, "decodes": 1}],
    )
    metrics = measure(run, parse_goodput("ttft:2000"))
    assert (metrics.requests, metrics.finished, metrics.unfinished) == (3, 1, 2)
    assert (metrics.ttft_s.count, metrics.tpot_s.count, metrics.end_to_end_s.count) == (2, 1, 1)
    assert metrics.tpot_s.mean == 0.5
    assert metrics.throughput.output_tokens_per_s == pytest.approx(7 / 5)
    assert metrics.throughput.total_tokens_per_s == pytest.approx(27 / 5)
    assert (metrics.preemptions, metrics.preempted_requests) == (3, 1)
    assert metrics.goodput is not None
    assert (metrics.goodput.share, metrics.goodput.requests_per_s) == (pytest.approx(1 / 3), 0.2)


def test_cached_prompt_tokens_have_a_share(make_run):
    run = make_run(requests=[{"scheduled_s": 0.0, "cached_tokens": 4}, {"scheduled_s": 0.0}, {}])
    assert measure(run).cached_share == 0.2


def test_metrics_are_json_and_the_same_each_time(make_run, token_times):
    one = json.dumps(measure(token_times(7, 2).record(), parse_goodput("tpot:50")).as_dict(), allow_nan=False)
    other = json.dumps(measure(token_times(7, 2).record(), parse_goodput("tpot:50")).as_dict(), allow_nan=False)
    assert one == other
    empty = measure(make_run()).as_dict()
    assert empty["ttft_s"]["p99"] is None
    assert json.loads(json.dumps(empty, allow_nan=False))["requests"] == 0
