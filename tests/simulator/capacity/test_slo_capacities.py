"""Several SLOs from the same runs, on made-up outcomes whose capacity is known."""

from math import log

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.capacity.slo import parse_slo
from simulator.capacity.slo_capacities import find_capacities
from simulator.trials.plan import carry_out
from tests.simulator.capacity.made_up import CANDIDATE, CHAT, MadeUp
from traces.goodput import parse_goodput

LIMITS_MS = (100, 250, 500)
SLOS = [parse_slo(f"tbt:{limit}") for limit in LIMITS_MS]


def found(runner, slos=SLOS, **options):
    return carry_out(find_capacities(CANDIDATE, CHAT, slos, **{"guess_per_s": 1.0, **options}), runner)


@settings(deadline=None, max_examples=30)
@given(centre=st.floats(0.05, 20), power=st.floats(0.5, 6), pilot=st.sampled_from([0, 20]))
def test_each_slo_has_its_capacity(centre, power, pilot):
    runner = MadeUp(lambda rate, _: (rate / centre) ** power)
    for limit_ms, capacity in zip(LIMITS_MS, found(runner, pilot_requests=pilot), strict=True):
        truth = centre * (limit_ms / 100) ** (1 / power)
        assert capacity.low_per_s * (1 - 1e-9) <= truth <= capacity.high_per_s * (1 + 1e-9)
        assert log(capacity.high_per_s / capacity.low_per_s) <= log(1.025) + 1e-9
        assert not capacity.stability


def test_no_rate_is_run_twice_and_none_all_at_once():
    runner = MadeUp(lambda rate, _: rate**2)
    found(runner)
    assert len(runner.rates) == len(set(runner.rates)) == len(runner.trials)


def test_equal_slos_cost_no_more_than_one():
    one, two = (MadeUp(lambda rate, _: rate**2) for _ in range(2))
    first, second = found(one, [SLOS[0], SLOS[0]])
    found(two, SLOS[:1])
    assert one.rates == two.rates
    assert first.rate_per_s == second.rate_per_s


def test_a_pilot_runs_fewer_requests_and_says_where_to_begin():
    runner = MadeUp(lambda rate, _: (rate / 40) ** 2)
    found(runner, SLOS[:1], pilot_requests=20)
    asked = [trial.demand.num_prompts for trial in runner.trials]
    whole = [trial.rate_per_s for trial in runner.trials if trial.demand == CHAT]
    assert set(asked) == {20, CHAT.num_prompts}
    assert asked == sorted(asked)
    assert len(whole) <= 3
    assert all(30 < rate < 50 for rate in whole)


def test_an_slo_that_is_never_met_leaves_the_others():
    runner = MadeUp(lambda rate, _: 1.5 + rate)
    unmet, met, _ = found(runner)
    assert unmet.unmet
    assert met.rate_per_s == pytest.approx(1.0, rel=0.03)


def test_goodput_is_refused():
    with pytest.raises(ValueError, match="goodput"):
        found(MadeUp(lambda rate, _: rate), [parse_slo(goodput=parse_goodput("ttft:400"))])
