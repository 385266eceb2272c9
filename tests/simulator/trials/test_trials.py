"""Trials, plans and demand: equal inputs have equal outcomes, wherever they run."""

import json
from dataclasses import replace

import numpy as np
import pytest

from policies.catalog import choose
from simulator.session import Request, prepare
from simulator.simulation import simulate
from simulator.trials.candidate import Candidate
from simulator.trials.outcome import Outcome
from simulator.trials.plan import Plan, carry_out, run_here, side_by_side
from simulator.trials.trial import Trial
from simulator.trials.workers import processes
from traces.demand import Demand
from traces.errors import InputError
from traces.run_record import read_run

CHAT = Demand(source="chat", num_prompts=60)
CANDIDATE = Candidate(choice=choose("sarathi-serve"), model="mistral-7b", device="a100-sxm", max_model_len=CHAT.longest)
TRIAL = Trial(candidate=CANDIDATE, demand=CHAT, rate_per_s=2.0, seed=3)


def sums(plan_trials: list[list[Trial]]) -> Plan[float]:
    total = 0.0
    for trials in plan_trials:
        answers = yield trials
        total += sum(each.metrics["TTFT P50"] for each in answers if isinstance(each, Outcome))
    return total


def test_a_trial_is_what_the_command_line_runs(tmp_path):
    request = Request(
        workload="chat", num_prompts=60, request_rate=2.0, seed=3, policies="sarathi-serve", model="mistral-7b",
        device="a100-sxm", max_model_len=8192, output=tmp_path,
    )  # fmt: skip
    scenario, choices = prepare(request)
    simulate(scenario, choices["sarathi-serve"], tmp_path / "run")
    assert Outcome.of(read_run(tmp_path / "run")).as_dict() == TRIAL.run().as_dict()


def test_an_outcome_survives_json_bit_for_bit():
    outcome = TRIAL.run()
    again = Outcome.from_dict(json.loads(json.dumps(outcome.as_dict())))
    assert again.as_dict() == outcome.as_dict()
    assert again.metrics["TBT P99"] == outcome.metrics["TBT P99"]
    assert np.isnan(again.metrics["Goodput"])


def test_keys_tell_trials_apart():
    others = [
        replace(TRIAL, seed=4),
        replace(TRIAL, rate_per_s=2.0000001),
        replace(TRIAL, demand=CHAT.first(30)),
        replace(TRIAL, candidate=replace(CANDIDATE, choice=choose("sarathi-serve", max_num_batched_tokens=513))),
    ]
    others += [replace(TRIAL, cost_draw=0), replace(TRIAL, cost_draw=3)]
    small_nodes = replace(CANDIDATE, gpus_per_node=4)
    others += [replace(TRIAL, candidate=small_nodes)]
    assert len({each.key for each in [TRIAL, replace(TRIAL), *others]}) == 8
    assert "gpus_per_node" not in TRIAL.key
    assert small_nodes.hardware == "a100-sxm TP 1 PP 1, 4 GPUs a node"


def test_a_draw_of_the_cost_model_changes_times_and_not_requests():
    plain, drawn, again = TRIAL.run(), replace(TRIAL, cost_draw=1).run(), replace(TRIAL, cost_draw=1).run()
    assert drawn.as_dict() == again.as_dict()
    assert drawn.offered_per_s == plain.offered_per_s
    ratio = drawn.metrics["TPOT P50"] / plain.metrics["TPOT P50"]
    assert ratio != 1
    assert 0.8 < ratio < 1.25


def test_processes_and_this_one_agree():
    trials = [replace(TRIAL, seed=seed) for seed in range(3)]
    with processes(2) as run:
        assert [each.as_dict() for each in run(trials)] == [each.as_dict() for each in run_here(trials)]


def test_what_cannot_run_is_an_answer():
    too_long = replace(TRIAL, candidate=replace(CANDIDATE, max_model_len=100))
    (answer,) = run_here([too_long])
    assert isinstance(answer, InputError)


def test_plans_side_by_side_find_what_each_finds_alone():
    trials = [replace(TRIAL, seed=seed) for seed in range(4)]
    steps = {"short": [trials[:1]], "long": [trials[1:3], trials[3:], trials[:2]], "none": []}
    together = carry_out(side_by_side({name: sums(each) for name, each in steps.items()}))
    assert together == {name: carry_out(sums(each)) for name, each in steps.items()}
    assert list(together) == list(steps)


def test_a_preset_has_the_same_requests_at_every_rate():
    slow, fast = CHAT.workload(1.0, 7), CHAT.workload(4.0, 7)
    assert np.array_equal(slow.prompt_tokens, fast.prompt_tokens)
    assert slow.arrival_s == pytest.approx(4 * fast.arrival_s)
    assert not np.array_equal(slow.prompt_tokens, CHAT.workload(1.0, 8).prompt_tokens)


def write_trace(path, count=300):
    rng = np.random.default_rng(0)
    times = np.cumsum(rng.exponential(0.5, count)) * 1e3
    rows = [
        {"timestamp": t, "input_length": int(n), "output_length": 3, "hash_ids": [int(i) for i in range(-(-n // 512))]}
        for t, n in zip(times, rng.integers(1, 2000, count), strict=True)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_a_trace_is_itself_with_seed_0_and_redrawn_with_others(tmp_path):
    demand = Demand(source=write_trace(tmp_path / "trace.jsonl"), arrivals="trace")
    itself, other = demand.workload(3.0), demand.workload(3.0, 1)
    assert itself.rate_per_s == pytest.approx(3.0)
    assert other.rate_per_s == pytest.approx(3.0)
    assert list(itself.prompt_tokens[:3]) != list(other.prompt_tokens[:3])
    assert set(other.prompt_tokens) <= set(itself.prompt_tokens)
    assert np.all(np.diff(other.arrival_s) >= 0)
    assert other.hash_ids is not None
    assert all(len(other.hash_ids.of(i)) == -(-int(other.prompt_tokens[i]) // 512) for i in range(len(other)))
    assert np.array_equal(other.prompt_tokens, demand.workload(9.0, 1).prompt_tokens)


def test_poisson_gaps_take_the_place_of_a_traces_own(tmp_path):
    path = write_trace(tmp_path / "trace.jsonl")
    poisson = Demand(source=path).workload(3.0, 5)
    assert poisson.arrival_s == pytest.approx(Demand(source=path).workload(6.0, 5).arrival_s * 2)
    assert not np.allclose(poisson.arrival_s, Demand(source=path, arrivals="trace").workload(3.0, 5).arrival_s)


@pytest.mark.parametrize(
    "wrong", [{"arrivals": "all"}, {"burstiness": 0.0}, {"burstiness": 2.0, "arrivals": "trace"}, {"num_prompts": 0}]
)
def test_wrong_demand_is_refused(wrong):
    with pytest.raises(InputError):
        Demand(source="chat", **wrong).workload(1.0)
