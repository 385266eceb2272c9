"""Engines of known faults, and what the judge says of the simulator that does not know them."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policies.blocks import KVMemory
from policies.catalog import PolicyChoice, choose
from profiler.cost_model import load_cost_model
from profiler.deployment import Deployment
from simulator.cluster import Cluster
from simulator.simulation import Scenario, simulate
from simulator.validation import Judge, Validation
from simulator.validation.validation import Finding
from traces.errors import InputError
from traces.run_record import read_run, write_run
from traces.workload import Workload

Make = Callable[..., Any]
LOADS, POLICIES = ("below", "above"), ("orca", "vllm", "sarathi-serve")


def finding(validation: Validation, subject: str) -> Finding:
    return next(each for each in validation.verdict if each.subject == subject)


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_an_engine_that_does_as_predicted_is_predicted_exactly(measured: Make) -> None:
    validation = measured().validation()
    assert validation.holds
    assert validation.iteration_error == 0
    assert validation.loads == LOADS
    assert validation.policies == POLICIES
    for case in validation.cases:
        assert case.batches.same == case.batches.leading == case.batches.measured == case.batches.simulated > 100
        assert case.batches.first_different is None
        assert all(pair.deviation == 0 for pair in case.metrics.values())
        assert (case.errors.p90, case.errors.bias, case.errors.total, case.errors.coverage) == (0, 0, 0, 1)
    assert all(each.agree and each.tie for each in validation.winners.values())
    for own in validation.orders.values():
        for found in own.values():
            assert found.tau == pytest.approx(1) or (math.isnan(found.tau) and found.pairs == found.ties)
            assert not found.reversed
    assert finding(validation, "free run").text == "The free simulations make the same batches to the end."


def test_a_slow_engine_has_a_bias_and_the_same_winner(measured: Make) -> None:
    validation = measured(slower=1.03).validation()
    for errors in (validation.errors, *validation.by_kind.values(), *(case.errors for case in validation.cases)):
        assert errors.bias == pytest.approx(1 / 1.03 - 1)
        assert errors.median == pytest.approx(1 - 1 / 1.03)
        assert errors.p90 == pytest.approx(1 - 1 / 1.03)
        assert errors.total == pytest.approx(1 / 1.03 - 1)
        assert errors.by_time == pytest.approx(1 - 1 / 1.03)
        assert errors.coverage == 1
    assert validation.noise == validation.iteration_error
    assert validation.by_kind.keys() == {"prefill", "mixed", "decode"}
    assert {case.batches.same - case.batches.measured for case in validation.cases} == {0}
    assert any(case.batches.leading < case.batches.measured for case in validation.cases)
    assert all(each.agree for each in validation.winners.values())
    for metric in ("TTFT P50", "TBT mean", "TPOT P50", "TPOT mean", "End-to-end P50"):
        assert validation.orders[metric]["all"].tau == pytest.approx(1)
        assert all(case.metrics[metric].deviation < 0 for case in validation.cases)
    assert validation.holds


def test_a_slower_engine_is_said_to_be_beyond_the_limits_and_where(measured: Make) -> None:
    validation = measured(slower=1.25).validation()
    assert not validation.holds
    assert validation.verdict[0].text.startswith("The simulator falls short of this engine in 3 of 5 points: ")
    assert finding(validation, "iteration time").holds is False
    assert "The median iteration is 20.0 % off" in finding(validation, "iteration time").text
    for metric in ("TPOT P50", "End-to-end P50"):
        text = finding(validation, metric).text
        worst = max(validation.cases, key=lambda case: abs(case.metrics[metric].deviation))
        assert text.startswith(f"0 of 6 cases are within 8 %. Worst: {worst.name}: measured ")
        assert all(case.name in text for case in validation.cases)
    assert finding(validation, "best policy").holds
    assert finding(validation, "same batches").holds
    assert validation.errors.coverage == 0


def test_coverage_counts_the_iterations_within_the_band(measured: Make) -> None:
    made = measured(noise=0.08)
    validation = made.validation()
    for case in validation.cases:
        run = read_run(made.folder / "measured" / case.load / case.policy).iterations
        rng = np.random.default_rng(0)
        factor = np.exp(0.08 * rng.standard_normal(len(run)))
        within = ((factor > 0.9) & (factor < 1.1)).mean()
        assert 0.6 < within < 0.95
        assert case.errors.coverage == pytest.approx(within)
        assert case.errors.median == pytest.approx(np.median(np.abs(1 / factor - 1)))


def test_a_batch_that_differs_is_reported_with_its_place(measured: Make) -> None:
    made = measured()
    path = made.folder / "measured" / "above" / "vllm"
    run = read_run(path)
    sums = run.iterations.decode_context_sum.copy()
    sums[37] += 1
    write_run(path, replace(run, iterations=replace(run.iterations.in_memory(), decode_context_sum=sums)))
    validation = made.validation()
    batches = validation.case("above", "vllm").batches
    assert (batches.same, batches.first_different, batches.leading) == (batches.measured - 1, 37, 37)
    found = finding(validation, "same batches")
    assert found.holds is False
    assert "vllm, above: iteration 37 is the first" in found.text
    others = [case.batches for case in validation.cases if case.name != "vllm, above"]
    assert all(each.first_different is None for each in others)
    assert not validation.holds


def test_another_best_policy_is_named_with_what_it_costs(measured: Make) -> None:
    made = measured({"below": 3.0, "above": 5.0})
    for load in LOADS:
        swapped = {"sarathi-serve": "vllm", "vllm": "sarathi-serve"}
        for label, other in swapped.items():
            shutil.move(made.folder / "measured" / load / label, made.folder / f"{load}-{other}")
        for label in swapped:
            target = made.folder / "measured" / load / label
            shutil.move(made.folder / f"{load}-{label}", target)
            meta = json.loads((target / "run.json").read_text())
            meta["policy"] = {"name": label, **vars(made.choices[label].settings)}
            (target / "run.json").write_text(json.dumps(meta))
    validation = made.validation()
    assert (validation.best_measured, validation.best_predicted) == ("vllm", "sarathi-serve")
    found = finding(validation, "best policy")
    assert found.holds is False
    for load in LOADS:
        each = validation.winners[load]
        assert (each.measured, each.predicted, each.tie) == ("vllm", "sarathi-serve", False)
        assert each.cost["TBT P99"] > 0.5
        assert f"load {load} the best is vllm as measured and sarathi-serve as predicted" in found.text
    assert validation.orders["TBT P99"]["below"].reversed > validation.orders["TBT P99"]["below"].reversed_ties
    assert finding(validation, "same batches").holds is False


def test_other_programs_are_named(measured: Make) -> None:
    made = measured()
    for busy, words in (
        (0.02, "0.02 processors busy during a replay (vllm, below): the machine was quiet"),
        (0.4, "slows"),
    ):
        found = made.validation(others={("below", "vllm"): busy})
        assert found.case("below", "vllm").others == busy
        (said,) = [finding for finding in found.verdict if finding.subject == "other programs"]
        assert words in said.text


def test_a_prediction_is_for_the_machine_as_it_was(measured: Make) -> None:
    made = measured(slower=1.25)
    cases = [(case.load, case.policy) for case in made.validation().cases]
    found = made.validation(drift={**dict.fromkeys(cases, 0.25), ("below", "vllm"): 0.20})
    assert found.case("below", "orca").errors.median < 1e-6
    assert found.case("below", "vllm").errors.bias == pytest.approx(1.2 / 1.25 - 1)
    assert [case.drift for case in found.cases if case.name != "vllm, below"] == [0.25] * (len(cases) - 1)
    (said,) = [each for each in found.verdict if each.subject == "drift"]
    assert "+20.0 % (vllm, below) to +25.0 %" in said.text
    assert found.steady_errors.median == pytest.approx(1 - 1 / 1.25)
    assert "the median iteration would be 20.0 % off, and all together -20.0 %" in said.text
    assert found.holds


def test_without_a_word_of_drift_nothing_is_said_of_it(measured: Make) -> None:
    found = measured().validation()
    assert "drift" not in {each.subject for each in found.verdict}
    assert {case.drift for case in found.cases} == {None}
    assert found.steady_errors == found.errors


def test_it_is_said_what_the_cost_model_stands_on(measured: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    made = measured({"near": 6.0})
    assert "knows the engine's ops alone" in finding(made.validation(), "profile").text
    engine = {"rows": 40, "errors": {"median": 0.023, "p90": 0.06}}
    monkeypatch.setattr(made.judge._cost_model.__class__, "describe", lambda _: {"engine": engine})
    assert "stands on 40 designed iterations" in finding(made.validation(), "profile").text
    assert "2.3 % off (median; P90 6.0 %)" in finding(made.validation(), "profile").text


def test_the_folder_is_made_again_with_the_same_bytes(measured: Make) -> None:
    made = measured({"near": 6.0}, noise=0.02)
    validation = made.validation(command="python -m engine validate")
    first = digests(made.folder)
    assert {"validation.json", "report.html", "audit/near/vllm.parquet", "simulated/near/orca/run.json"} < first.keys()
    assert json.loads((made.folder / "validation.json").read_text()) == json.loads(json.dumps(validation.as_dict()))
    made.validation(command="python -m engine validate")
    assert digests(made.folder) == first
    simulated = read_run(made.folder / "simulated" / "near" / "orca")
    assert simulated.meta.source == "simulator"


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda made: shutil.rmtree(made.folder / "measured" / "above" / "vllm"), "above/vllm: no run record"),
        (lambda made: made.workloads.update(above=made.workloads["below"]), "above/orca: served other requests"),
        (lambda made: made.choices.update(vllm=choose("vllm", max_num_seqs=7)), "below/vllm: ran under"),
    ],
    ids=["missing", "other requests", "other settings"],
)
def test_a_run_of_something_else_is_refused_and_nothing_written(
    measured: Make, change: Callable[[Any], object], complaint: str
) -> None:
    made = measured()
    change(made)
    before = digests(made.folder)
    with pytest.raises(InputError, match=complaint):
        made.validation()
    assert digests(made.folder) == before


def test_a_run_with_other_kv_memory_is_refused(measured: Make, judge: Judge) -> None:
    gpu = judge._deployment
    other: Any = Judge(
        deployment=gpu,
        memory=KVMemory(blocks=1400, max_model_len=4096),
        profile=None,
        seed=0,
        cost_model=judge._cost_model,
    )
    with pytest.raises(InputError, match="had 1500 KV blocks of 16; expected 1400 of 16"):
        replace(measured(), judge=other).validation()


def test_saturation_is_the_rate_with_everything_there_at_once(
    measured: Make, judge: Judge, choices: dict[str, PolicyChoice]
) -> None:
    made = measured({"at once": math.inf})
    rates = judge.saturation(made.workloads["at once"], choices)
    for label, rate_per_s in rates.items():
        run = read_run(made.folder / "measured" / "at once" / label)
        assert rate_per_s == pytest.approx(len(run.requests) / run.end_s)
    spread = replace(made.workloads["at once"], arrival_s=np.arange(40.0))
    assert judge.saturation(spread, choices) == pytest.approx(rates)


def test_a_deployment_with_the_cost_model_that_ships(tmp_path: Path) -> None:
    choice = choose("sarathi-serve")
    deployment = Deployment(model="mistral-7b", device="a100-sxm", max_model_len=4096)
    memory = KVMemory(blocks=deployment.kv_blocks, max_model_len=4096)
    workload = Workload(
        name="few", arrival_s=np.arange(6) / 4, prompt_tokens=np.full(6, 700), output_tokens=np.arange(6, 12)
    )
    cluster = Cluster.single(deployment, load_cost_model(deployment), memory)
    scenario = Scenario(workload=workload, cluster=cluster)
    simulate(scenario, choice, tmp_path / "measured" / "only" / "best")
    judge = Judge(deployment=deployment, memory=memory, profile=None, seed=3)
    validation = judge.judge(tmp_path, {"only": workload}, {"best": choice})
    assert validation.iteration_error == 0
    assert validation.provenance["cost_model"]["from"] == "a100-sxm"
    assert validation.provenance["deployment"]["model"] == "mistral-7b"
    assert (validation.best_measured, validation.best_predicted) == ("best", "best")
    assert math.isnan(validation.orders["TTFT P50"]["all"].tau)
    assert validation.as_dict()["orders"]["TTFT P50"]["all"]["tau"] is None
    assert read_run(tmp_path / "simulated" / "only" / "best").meta.seed == 3


def test_loads_come_in_order_of_their_rates(measured: Make) -> None:
    validation = measured({"much": 9.0, "little": 2.0, "some": 5.0}, requests=8).validation()
    assert validation.loads == ("little", "some", "much")
    assert [case.name for case in validation.cases[:3]] == ["orca, little", "vllm, little", "sarathi-serve, little"]


def test_an_engine_that_is_slow_at_prefills_is_found_out_by_kind(measured: Make) -> None:
    validation = measured({"above": 9.0}, prefill_slower=1.5).validation()
    biases = {name: errors.bias for name, errors in validation.by_kind.items()}
    assert biases == pytest.approx({"prefill": -1 / 3, "mixed": -1 / 3, "decode": 0}, abs=1e-9)
    worst = finding(validation, "End-to-end P50")
    assert worst.holds is False
    assert "prefill and decodes -33.3 %, decodes only " in worst.text
