"""Rungs, who goes on, intervals, and by how much the winner leads."""

from itertools import pairwise
from math import exp, inf, log, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.prediction import Interval
from simulator.capacity.slo import parse_slo
from simulator.interval import of_draws, widened
from simulator.search.documents import coverage
from simulator.search.estimate import Estimate, Refusal
from simulator.search.halving import check, check_reached, judge
from simulator.search.lead import lead
from simulator.search.objective import Objective
from simulator.search.podium import prediction_rate
from simulator.search.prices import Prices
from simulator.search.rung import rungs
from simulator.search.space import PolicyAxes, Space, select
from traces.errors import InputError

SPACE = Space(
    model="mistral-7b",
    max_model_len=4096,
    policies=(PolicyAxes(name="vllm"),),
    max_num_seqs=(1, 2, 3, 4, 5),
    tensor_parallel_size=(1, 2),
)
CANDIDATES = select(SPACE, 100, 0).candidates
ONE, TWO = list(CANDIDATES)[:5], list(CANDIDATES)[5:]
COST = Objective(name="cost", prices=Prices(usd_per_hour={"a100-sxm": 3.6}), output_tokens=100.0)
CAPACITY = Objective(name="capacity", prices=Prices(), output_tokens=100.0)
SLO = parse_slo("tbt:100")


def estimate(rate, low=None, high=None, requests=1600, **more):
    given = {
        "bound_by": "saturation", "seeds_per_s": (rate,), "nearest": "", "held_per_s": rate,
        "metrics": {"Goodput": nan, "TTFT P99": rate}, "trials": 5,
    }  # fmt: skip
    low, high = rate if low is None else low, rate if high is None else high
    return Estimate(rate_per_s=rate, low_per_s=low, high_per_s=high, requests=requests, **{**given, **more})


@given(st.integers(1, 5000), st.integers(1, 100_000), st.integers(1, 9))
def test_rungs_narrow_down_to_the_finalists_on_the_whole_demand(candidates, requests, finalists):
    ladder = rungs(candidates, requests, finalists=finalists, seed=4, seeds=3, most_trials=15, tolerance=0.02)
    assert ladder[0].candidates == candidates
    assert (ladder[-1].candidates, ladder[-1].requests) == (min(candidates, finalists), requests)
    assert all(one.candidates >= next_.candidates for one, next_ in pairwise(ladder))
    assert all(one.requests <= next_.requests for one, next_ in pairwise(ladder))
    assert [rung.seeds for rung in ladder] == [1] * (len(ladder) - 1) + [3]
    assert {rung.seed for rung in ladder} == {4}


LADDER = rungs(10, 1600, finalists=3, seed=0, seeds=3, most_trials=15, tolerance=0.02)


def test_the_cheapest_go_on_and_the_clearly_worse_do_not():
    found = {label: estimate(rate) for label, rate in zip(ONE, (2.0, 1.9, 1.85, 1.83, 1.0), strict=True)}
    found |= {label: estimate(rate) for label, rate in zip(TWO, (3.9, 3.0, 2.9, 2.8, 2.7), strict=True)}
    step = judge(found, CANDIDATES, COST, LADDER[0], 9)
    assert list(step.estimates)[:4] == [ONE[0], TWO[0], ONE[1], ONE[2]]
    assert step.dominated == {ONE[4]: ONE[0], **dict.fromkeys(TWO[1:], TWO[0])}
    assert step.kept == (ONE[0], TWO[0], ONE[1], ONE[2], ONE[3])
    assert judge(found, CANDIDATES, CAPACITY, LADDER[0], 2).kept == (TWO[0], TWO[1])


def test_short_runs_rule_nobody_out_by_a_little():
    found = {label: estimate(rate, requests=64) for label, rate in zip(ONE, (2.0, 1.9, 1.8, 1.7, 1.4), strict=True)}
    assert not judge(found, CANDIDATES, COST, LADDER[0], 4).dominated
    assert judge({**found, ONE[4]: estimate(1.3)}, CANDIDATES, COST, LADDER[0], 4).dominated


def test_at_the_last_cut_equal_ones_come_last():
    found = {label: estimate(rate) for label, rate in zip(ONE, (2.0, 2.0, 1.9, 1.9, 1.85), strict=True)}
    assert judge(found, CANDIDATES, COST, LADDER[0], 3).kept == (ONE[0], ONE[1], ONE[2])
    found[ONE[1]] = estimate(2.0, metrics={**found[ONE[0]].metrics, "KV use, max": 0.5})
    assert judge(found, CANDIDATES, COST, LADDER[0], 3, last_cut=True).kept == (ONE[0], ONE[2], ONE[4])


def test_what_no_rate_was_seen_to_hold_for_wins_nothing():
    found = {label: estimate(rate) for label, rate in zip(ONE, (2.0, 1.9, 1.98, 1.97, 1.96), strict=True)}
    found[ONE[1]] = estimate(9.0, low=8.0, held_per_s=0.0, metrics={}, nearest="P99 TBT 143 ms")
    step = judge(found, CANDIDATES, COST, LADDER[0], 4)
    assert list(step.estimates) == [ONE[0], *ONE[2:], ONE[1]]
    assert step.kept == (ONE[0], *ONE[2:])
    assert not step.dominated
    alone = judge({ONE[1]: found[ONE[1]]}, CANDIDATES, COST, LADDER[-1], None)
    with pytest.raises(InputError, match=r"none of 1 candidates meets .*, at any rate that was tried .*P99 TBT 143 ms"):
        check(alone, SLO)


def test_a_rate_that_is_asked_for_comes_first_then_the_price():
    asked = Objective(name="cost", prices=COST.prices, output_tokens=100.0, request_rate_per_s=2.5)
    found = {ONE[0]: estimate(2.0), TWO[0]: estimate(2.6), TWO[1]: estimate(3.6), ONE[1]: estimate(2.55)}
    assert list(judge(found, CANDIDATES, asked, LADDER[-1], None).estimates) == [ONE[1], TWO[1], TWO[0], ONE[0]]
    assert asked.value_of(CANDIDATES[TWO[0]], found[TWO[0]]) == pytest.approx(7.2 / 3600 / 250 * 1e6)


def test_nobody_left_is_said_with_who_comes_nearest():
    unmet = {ONE[0]: estimate(0.0, 0.0, 0.1, nearest="P99 TBT 143 ms"), ONE[1]: Refusal(reason="too long")}
    step = judge(unmet, CANDIDATES, COST, LADDER[0], 3)
    assert step.refused == {ONE[1]: "too long"}
    with pytest.raises(InputError, match=r"--slo: none of 1 candidates meets P99 TBT.*P99 TBT 143 ms"):
        check(step, SLO)
    with pytest.raises(InputError, match=r"can serve the demand.*too long"):
        check(judge({ONE[1]: unmet[ONE[1]]}, CANDIDATES, COST, LADDER[0], 3), SLO)
    asked = Objective(name="capacity", prices=Prices(), output_tokens=1.0, request_rate_per_s=9.0)
    with pytest.raises(InputError, match=r"no candidate reaches 9 requests/s.*the most is 2, vllm"):
        check_reached(judge({ONE[0]: estimate(2.0)}, CANDIDATES, asked, LADDER[-1], None), SLO, asked)


@given(st.floats(0.1, 10), st.lists(st.floats(0.1, 10), min_size=1, max_size=200))
def test_an_interval_holds_its_value_and_the_middle_of_the_draws(value, draws):
    found = of_draws(value, draws)
    assert found.low <= value <= found.high
    assert sum(found.low <= each <= found.high for each in draws) >= 0.9 * len(draws) - 1


def test_nineteen_draws_span_90_percent_and_others_their_ranks():
    assert of_draws(5.0, [float(each) for each in range(1, 20)]) == Interval(value=5.0, low=1.0, high=19.0)
    assert of_draws(20.0, [float(each) for each in range(1, 40)]) == Interval(value=20.0, low=2.0, high=38.0)
    assert of_draws(1.0, []) == Interval(value=1.0, low=1.0, high=1.0)


@pytest.mark.parametrize(("draws", "share"), [(2, 0.33), (5, 0.66), (18, 0.89), (19, 0.9), (199, 0.9)])
def test_fewer_draws_promise_less(draws, share):
    assert coverage(draws) == share


def test_independent_errors_add_as_squares():
    found = widened(
        Interval(value=2.0, low=2 * exp(-0.3), high=2 * exp(0.3)), Interval(value=7.0, low=7 * exp(-0.4), high=inf)
    )
    assert found.low == pytest.approx(2 * exp(-0.5))
    assert found.high == inf


def test_what_both_have_in_common_does_not_blur_a_lead():
    ours, theirs = [2.0, 3.0, 4.0], [1.0, 1.5, 2.0]
    found = lead("other", "capacity", 0.75, (ours, theirs), ([1.0, 2.0, 0.5], [0.5, 1.0, 0.25]))
    assert found.ratio == pytest.approx(1.5)
    assert log(found.high / found.low) == pytest.approx(0.0, abs=1e-9)
    assert found.sure
    fails = lead("other", "capacity", 0.75, (ours, theirs), ([1.0, 2.0, 0.0], [0.5, 1.0, 0.25]))
    assert (fails.low, fails.high, fails.sure) == (0.0, found.high, False)
    unknown = lead("other", "capacity", 0.75, (ours, theirs), ([0.0, 2.0], [0.5, 1.0]))
    assert (unknown.ratio, unknown.low, unknown.sure) == (found.ratio, 0.0, False)
    unsure = lead("other", "capacity", 1.0, (ours, [3.0, 1.5, 4.5]), ([1.0], [1.0]))
    assert unsure.low < 1 < unsure.high
    assert "too close to call" in unsure.verdict


def test_metrics_are_predicted_below_what_is_sustained_and_not_at_next_to_nothing():
    assert prediction_rate(estimate(10.0, low=9.0)) == pytest.approx(8.1)
    assert prediction_rate(estimate(10.0, low=1.0)) == pytest.approx(5.0)
