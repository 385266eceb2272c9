"""Whether a system keeps up: the rate of service, and queues that grow."""

from dataclasses import replace
from math import log

import numpy as np
import pytest

from policies.catalog import choose
from simulator.capacity.capacity import find_capacity
from simulator.capacity.saturation import ALL_AT_ONCE_PER_S, drift, saturated_by, service_limit_per_s, trend
from simulator.capacity.service import Budget, Trials, find_service, flood
from simulator.capacity.slo import parse_slo
from simulator.cluster_settings import ClusterSettings, GroupSettings
from simulator.simulation import simulate_in_memory
from simulator.trials.backlog import present, service_per_s
from simulator.trials.candidate import Candidate
from simulator.trials.plan import carry_out
from simulator.trials.trial import Trial
from tests.simulator.capacity.made_up import made_up
from traces.demand import Demand

SHORT = Demand(source="chat", num_prompts=1000, length_scale=0.1)
SARATHI = Candidate(
    choice=choose("sarathi-serve", max_num_seqs=16),
    model="mistral-7b",
    device="a100-sxm",
    max_model_len=SHORT.longest,
)
SPLIT = ClusterSettings(groups=(GroupSettings(role="prefill", count=2), GroupSettings(role="decode")))


def trial(demand=SHORT, rate_per_s=ALL_AT_ONCE_PER_S, seed=0, **changes):
    return Trial(candidate=replace(SARATHI, **changes), demand=demand, rate_per_s=rate_per_s, seed=seed)


def run(each):
    scenario = each.candidate.scenario(each.demand.workload(each.rate_per_s, each.seed), seed=each.seed)
    return simulate_in_memory(scenario, each.candidate.choice)


def test_present_are_those_that_came_and_did_not_go():
    record = run(trial(SHORT.first(80), 20.0))
    requests = record.requests
    ends = requests.arrival_s[0] + (requests.arrival_s[-1] - requests.arrival_s[0]) * np.arange(1, 6) / 5
    counted = [int(np.sum((requests.arrival_s <= end + 1e-12) & (requests.finished_s > end))) for end in ends]
    assert list(present(record, 5)) == counted


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"choice": choose("orca", max_num_seqs=16)},
        {"choice": choose("faster-transformer", max_num_seqs=16)},
        {"cluster": ClusterSettings(groups=(GroupSettings(count=3),))},
        {"cluster": SPLIT},
    ],
    ids=["sarathi-serve", "orca", "faster-transformer", "3 replicas", "prefill and decode apart"],
)
def test_the_rate_of_service_is_that_of_a_run_ten_times_as_long(changes):
    """There the time in which the system fills and empties does not count."""
    long = run(trial(replace(SHORT, num_prompts=6000), **changes))
    whole = 6000 / float(long.requests.finished_s.max())
    rates = [service_per_s(run(trial(replace(SHORT, num_prompts=600), seed=seed, **changes))) for seed in range(3)]
    assert np.mean(rates) == pytest.approx(whole, rel=0.06)


def test_requests_that_hardly_wait_do_not_tell_how_fast_they_are_served():
    assert np.isnan(service_per_s(run(trial(SHORT.first(20)))))
    assert service_limit_per_s(trial(SHORT.first(20)).run()) is None


def limit_per_s(demand, seed, *, flooded, **changes):
    """What a search takes for the rate of service, before a flood and after."""
    trials = Trials(candidate=replace(SARATHI, **changes), demand=demand, goodput=None, seed=seed)
    service = carry_out(find_service(trials, Budget(1), stability=True, like=None))
    return (carry_out(flood(trials, service)) if flooded else service).limit_per_s


@pytest.mark.parametrize(
    "choice", [SARATHI.choice, choose("slack", max_num_seqs=16, tbt_s=0.03)], ids=["sarathi-serve", "slack"]
)
@pytest.mark.parametrize("flooded", [False, True], ids=["at once", "flood"])
def test_the_limit_tells_systems_that_keep_up_from_those_that_do_not(choice, flooded):
    """Of 3,000 requests below and above it the queue says what is true; 1,000 have to tell, of other seeds."""
    long = replace(SHORT, num_prompts=3000)
    true = limit_per_s(long, 50, flooded=flooded, choice=choice)
    growth = [drift(trial(long, load * true, 50, choice=choice).run()).growth for load in (0.9, 1.1)]
    assert growth[0] < 0.03 < growth[1]
    mean = np.exp(np.mean([np.log(limit_per_s(SHORT, seed, flooded=flooded, choice=choice)) for seed in range(3)]))
    for load, saturated in ((0.8, False), (0.9, False), (0.95, False), (1.05, True), (1.1, True), (1.2, True)):
        assert (load * true > mean) == saturated


def test_a_flood_corrects_the_limit_of_a_policy_that_runs_short_prompts_first():
    """Of all requests at once it is left with the long ones, few of which fit side by side."""
    chat = Demand(source="chat", num_prompts=1000)
    deployment = {"model": "yi-34b", "tensor_parallel_size": 2, "max_model_len": chat.longest}

    def limit(*, flooded, **settings):
        choice = choose("slack", max_num_seqs=128, tbt_s=1.0, **settings)
        return limit_per_s(chat, 0, flooded=flooded, choice=choice, **deployment)

    in_order = limit(flooded=False, patience=0.0)
    assert limit(flooded=False) < 0.975 * in_order
    assert limit(flooded=True) == pytest.approx(in_order, rel=0.02)


def test_how_far_a_rate_is_beyond_the_limit():
    outcome = trial(SHORT.first(50), rate_per_s=1.0).run()
    assert saturated_by(2.0, 1.0, outcome) == pytest.approx(log(2))


def test_a_run_that_is_too_short_to_show_it_does_not_pass_as_stable():
    """Half as many requests again as are served arrive, and the P50 delay of the run is within the SLO."""
    true = service_limit_per_s(trial().run())
    assert true is not None
    few, slo = SHORT.first(150), parse_slo("tbt:1000 delay:3000")
    assert slo.margin(trial(few, 1.5 * true).run()) <= 0
    found = carry_out(find_capacity(SARATHI, few, slo))
    assert (found.bound_by, found.stable) == ("saturation", True)
    assert found.rate_per_s == pytest.approx(true, rel=0.1)
    alone = carry_out(find_capacity(SARATHI, few, slo, stability=False))
    assert alone.rate_per_s > 1.4 * true


def levels(rng, growth, windows=20, alike=0.5, spread=8.0, arrivals=100):
    """Return a queue that grows by a share of the arrivals, and otherwise wanders about its mean."""
    wander = [0.0]
    for _ in range(windows - 1):
        wander.append(alike * wander[-1] + rng.normal(0, spread))
    return [max(0.0, 50 + growth * arrivals * n + w) for n, w in enumerate(wander)]


@pytest.mark.parametrize(("growth", "low", "high"), [(0.0, 0, 0.06), (0.05, 0.6, 1), (0.1, 0.95, 1), (0.17, 1, 1)])
def test_a_queue_that_grows_is_told_from_one_that_wanders(growth, low, high):
    rng = np.random.default_rng(3)
    drifts = [drift(made_up(0.1, present=levels(rng, growth))) for _ in range(200)]
    assert low <= np.mean([each.grows for each in drifts]) <= high
    assert np.mean([each.growth for each in drifts]) == pytest.approx(growth, abs=0.01)


def test_a_straight_line_has_its_slope():
    slope, error = trend([3.0 + 2.0 * n for n in range(14)])
    assert (slope, error) == (pytest.approx(2.0), pytest.approx(0.0, abs=1e-6))


def test_too_few_windows_say_nothing():
    assert not drift(made_up(0.1, present=[1.0, 2.0, 3.0])).grows


def test_without_a_limit_the_drift_decides():
    rng = np.random.default_rng(4)
    assert saturated_by(9.0, None, made_up(0.1, present=levels(rng, 0.2))) == pytest.approx(0.2, abs=0.03)
    assert saturated_by(9.0, None, made_up(0.1, present=levels(rng, 0.0))) == 0
