"""The search over seeds, on made-up outcomes whose capacity is known."""

from math import exp, inf, log, sin

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.capacity.capacity import find_capacity
from simulator.capacity.ratio import ratio
from simulator.capacity.seed_capacity import SeedSearch, find_seed_capacity
from simulator.capacity.slo import parse_slo
from simulator.capacity.verdict import verdict
from simulator.interval import half_width
from simulator.trials.plan import carry_out
from tests.simulator.capacity.made_up import CANDIDATE, CHAT, MadeUp
from traces.errors import InputError

SLO = parse_slo("tbt:100")


def found(runner, **options):
    capacity = carry_out(find_capacity(CANDIDATE, CHAT, SLO, **options), runner)
    assert capacity.trials == len(runner.trials) <= options.get("most_trials", 15)
    return capacity


@settings(deadline=None, max_examples=25)
@given(
    centre=st.floats(0.02, 0.95),
    spread=st.floats(0, 0.05),
    power=st.floats(0.3, 10),
    seeds=st.integers(1, 4),
    stability=st.booleans(),
)
def test_a_power_of_the_rate_is_found(centre, spread, power, seeds, stability):
    truth = [centre * exp(spread * sin(7 * seed)) for seed in range(seeds)]
    runner = MadeUp(lambda rate, seed: (rate / truth[seed]) ** power, limit=1.0)
    capacity = found(runner, seeds=seeds, stability=stability)
    for seed, each in enumerate(capacity.seeds):
        assert each.low_per_s <= truth[seed] * (1 + 1e-9)
        assert each.high_per_s >= truth[seed] * (1 - 1e-9)
    mean = exp(np.mean(np.log(truth)))
    assert capacity.low_per_s <= mean * (1 + 1e-9)
    assert capacity.high_per_s >= mean * (1 - 1e-9)
    assert capacity.rate_per_s == pytest.approx(mean, rel=0.2)
    assert capacity.bound_by == "P99 TBT"


@settings(deadline=None, max_examples=25)
@given(centre=st.floats(0.3, 0.95), noise=st.floats(0, 0.02))
def test_noise_moves_the_capacity_by_little(centre, noise):
    def excess(rate, seed):
        return (rate / centre) ** 2 * exp(noise * sin(1e4 * rate + seed))

    capacity = found(MadeUp(excess, limit=1.0))
    assert capacity.low_per_s * exp(-noise) <= centre <= capacity.high_per_s * exp(noise)
    assert capacity.rate_per_s == pytest.approx(centre, rel=0.03)


@settings(deadline=None, max_examples=25)
@given(cliff=st.floats(0.3, 0.95), fall=st.floats(0.001, 0.9), rise=st.floats(1.001, 1000))
def test_a_cliff_is_found(cliff, fall, rise):
    capacity = found(MadeUp(lambda rate, _: fall if rate <= cliff else rise, limit=1.0))
    both = [each for each in capacity.seeds if each.above and each.below]
    assert capacity.seeds[0] in both
    assert all(each.low_per_s <= cliff <= each.high_per_s for each in both)


@settings(deadline=None, max_examples=25)
@given(st.floats(0.2, 3), st.floats(0, 6))
def test_of_a_margin_that_turns_some_crossing_is_found(frequency, phase):
    def excess(rate, _):
        return exp(sin(frequency * 10 * log(rate) + phase))

    for each in found(MadeUp(excess, limit=1.0)).seeds:
        assert each.below is None or each.below.rate_per_s == pytest.approx(each.low_per_s)
        if each.above is not None and each.bound_by != "saturation":
            assert each.above.rate_per_s == pytest.approx(each.high_per_s)
        assert all(sample.holds == (excess(sample.rate_per_s, 0) <= 1) for sample in each.samples[:-1])
        assert not any(sample.holds for sample in each.samples if each.low_per_s < sample.rate_per_s < each.high_per_s)


def test_the_first_seed_alone_and_then_the_others_side_by_side():
    runner = MadeUp(lambda rate, _: rate / 0.5, limit=1.0)
    found(runner)
    seeds = [[trial.seed for trial in step] for step in runner.steps]
    assert seeds[0] == [0]
    assert [1, 2] in seeds
    assert all(step in ([0], [1, 2], [1], [2]) for step in seeds)
    assert seeds == sorted(seeds)


def test_no_rate_beyond_that_of_service_is_within_the_capacity():
    runner = MadeUp(lambda rate, _: 0.5, limit=2.0)
    capacity = found(runner)
    assert (capacity.bound_by, capacity.stable) == ("saturation", True)
    assert capacity.rate_per_s == pytest.approx(2.0)
    assert [rate for rate in runner.rates if rate > 2.0] == [pytest.approx(4.0), pytest.approx(2.1)]
    beyond = capacity.seeds[0].above
    assert beyond is not None
    assert (beyond.bound_by, beyond.holds) == ("saturation", False)


def test_latencies_alone_decide_if_asked():
    runner = MadeUp(lambda rate, _: rate / 3.0, limit=2.0)
    assert found(MadeUp(lambda rate, _: rate / 3.0, limit=2.0)).rate_per_s == pytest.approx(2.0, rel=0.01)
    capacity = found(runner, stability=False)
    assert capacity.rate_per_s == pytest.approx(3.0, rel=0.03)
    assert capacity.stable is False
    assert "more than is served for ever" in verdict("a", capacity)


def test_an_slo_that_nobody_can_meet():
    runner = MadeUp(lambda rate, _: 50.0, limit=2.0)
    capacity = found(runner)
    assert capacity.unmet
    assert (capacity.rate_per_s, capacity.low_per_s) == (0.0, 0.0)
    assert {trial.seed for trial in runner.trials} == {0}
    assert min(runner.rates) == pytest.approx(2e-3)


def test_too_few_requests_to_find_a_limit():
    runner = MadeUp(lambda rate, _: 0.5, served=7.0)
    capacity = found(runner)
    assert capacity.unlimited
    assert (capacity.rate_per_s, capacity.high_per_s) == (pytest.approx(7.0), inf)
    assert [trial.demand.num_prompts for trial in runner.trials] == [50, 1024, 4096]


def test_more_requests_tell_how_fast_they_are_served():
    class Few(MadeUp):
        def _outcome(self, trial):
            self.limit = 2.0 if trial.demand.num_prompts > 50 else float("nan")
            return super()._outcome(trial)

    runner = Few(lambda rate, _: 0.5)
    assert found(runner).rate_per_s == pytest.approx(2.0)
    at_once = [(trial.seed, trial.demand.num_prompts) for trial in runner.trials if trial.rate_per_s == 1e6]
    assert at_once == [(0, 50), (0, 1024), (1, 1024), (2, 1024)]


def test_what_cannot_run_is_an_error():
    with pytest.raises(InputError, match="does not fit"):
        carry_out(find_capacity(CANDIDATE, CHAT, SLO), lambda trials: [InputError("does not fit") for _ in trials])


def test_one_seed_has_the_interval_of_its_bracket():
    capacity = found(MadeUp(lambda rate, _: rate / 0.5, limit=1.0), seeds=1)
    (only,) = capacity.seeds
    assert (capacity.low_per_s, capacity.high_per_s) == pytest.approx((only.low_per_s, only.high_per_s))


@pytest.mark.parametrize(("seeds", "most"), [(0, 15), (3, 10), (1, 4), (5, 15)])
def test_too_few_trials_are_refused(seeds, most):
    with pytest.raises(InputError):
        carry_out(find_capacity(CANDIDATE, CHAT, SLO, seeds=seeds, most_trials=most), MadeUp(lambda *_: 1.0))


@pytest.mark.parametrize("most", [2, 3, 4, 6])
def test_a_seed_alone_with_few_trials_says_what_it_knows(most):
    runner = MadeUp(lambda rate, _: rate / 0.3, limit=1.0)
    search = SeedSearch(most_trials=most)
    each = carry_out(find_seed_capacity(CANDIDATE, CHAT, SLO, search, seed=5), runner)
    assert each.trials == len(runner.trials) <= most
    assert each.low_per_s <= 0.3 <= each.high_per_s
    assert each.rate_per_s == pytest.approx(0.3, rel=0.5)


def test_a_guess_is_where_the_search_begins():
    runner = MadeUp(lambda rate, _: rate / 0.3, limit=1.0)
    found(runner, guess_per_s=0.29)
    assert runner.rates[0] == pytest.approx(0.29)


def test_the_interval_is_that_of_student():
    """90 % of the mean of three: 2.92 standard errors."""
    assert half_width([0.0, 1.0, 2.0]) == pytest.approx(2.9200 / 3**0.5, rel=1e-4)
    assert half_width([4.0]) == 0


def test_intervals_cover_the_mean_of_all_seeds_as_often_as_they_say():
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(100):
        truth = np.exp(rng.normal(0, 0.03, 3)) / 2
        capacity = found(MadeUp(lambda rate, seed, truth=truth: (rate / truth[seed]) ** 2, limit=1.0))
        covered += capacity.low_per_s <= 0.5 <= capacity.high_per_s
    assert 85 <= covered <= 100


def test_policies_that_share_requests_are_compared_seed_by_seed():
    shift = (0.8, 1.0, 1.25)
    runners = [MadeUp(lambda rate, seed, base=base: rate / (base * shift[seed]), limit=9.0) for base in (1.0, 1.2)]
    one, other = (found(runner) for runner in runners)
    assert one.high_per_s > other.low_per_s
    apart = ratio(other, one)
    assert apart is not None
    assert apart.certain
    assert apart.value == pytest.approx(1.2, rel=0.02)
    assert apart.low <= 1.2 <= apart.high
    back = ratio(one, other)
    assert back is not None
    assert (back.low, back.high) == pytest.approx((1 / apart.high, 1 / apart.low))


def test_one_seed_that_is_far_from_the_others_leaves_no_certainty():
    capacity = found(MadeUp(lambda rate, seed: 50.0 if seed == 1 else rate, limit=2.0))
    assert capacity.low_per_s < 0.1
    assert capacity.high_per_s > 1.0
