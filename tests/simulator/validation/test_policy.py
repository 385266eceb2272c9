"""A search's prediction, judged: intervals, order, pace, and what people get to see of it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from math import log, nan
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from policies.blocks import KVMemory
from policies.catalog import PolicyChoice, choose
from policies.prediction import Foretold, Interval, Prediction
from simulator.cluster import Cluster
from simulator.prediction import intervals
from simulator.simulation import Scenario, simulate_in_memory
from simulator.trials.outcome import Outcome
from simulator.validation import Judge
from simulator.validation.policy_order import deciding, equal, metric_orders, preferences
from simulator.validation.policy_validation import PolicyValidation, Promise, place
from tests.simulator.validation.conftest import Engine, PlainGPU, chat, write_measured
from traces.errors import InputError
from traces.workload import Workload

LABELS = ("sarathi-serve-256", "sarathi-serve-512", "vllm")
RATE = 3.0


@pytest.fixture(scope="module")
def workload() -> Workload:
    return chat("rate", RATE, 16)


def foretold(choice: PolicyChoice, workload: Workload, memory: KVMemory) -> Foretold:
    def metrics(gpu: Any) -> Any:
        scenario = Scenario(workload=workload, cluster=Cluster.single(gpu, gpu, memory))
        return Outcome.of(simulate_in_memory(scenario, choice)).metrics

    drawn = [metrics(PlainGPU().drawn(draw)) for draw in range(19)]
    return Foretold(choice=choice, metrics=intervals(metrics(PlainGPU()), drawn), deployment={}, replicas=1)


@pytest.fixture(scope="module")
def prediction(workload: Workload, memory: KVMemory) -> Prediction:
    chosen = [choose("sarathi-serve", max_num_batched_tokens=budget) for budget in (256, 512)]
    return Prediction(
        settings=tuple(foretold(choice, workload, memory) for choice in (*chosen, choose("vllm"))),
        workload={"source": "chat", "request_rate": RATE, "seed": 0},
        deployment={},
        profile="out/profile",
        objective={"name": "capacity"},
        why="It <wins>.",
    )


@pytest.fixture
def judged(
    tmp_path: Path, workload: Workload, memory: KVMemory, judge: Judge, prediction: Prediction
) -> Callable[..., PolicyValidation]:
    """Measure every setting on an engine of the given properties, by turn, and judge."""

    def make(*engines: dict[str, float], drift: dict[str, float] | None = None, **changes: Any) -> PolicyValidation:
        changed = replace(prediction, **changes)
        for label, each in changed.labelled.items():
            for turn, engine in enumerate(engines, start=1):
                path = tmp_path / "measured" / label / str(turn)
                write_measured(path, workload, each.choice, memory, **engine)
        return judge.judge_policy(
            tmp_path,
            changed,
            workload,
            replays=len(engines),
            drift=drift,
            others=dict.fromkeys(LABELS, 0.02),
            command="python -m engine validate --policy '<policy>.json'",
        )

    return make


def finding(validation: PolicyValidation, subject: str) -> Any:
    return next(each for each in validation.verdict if each.subject == subject)


def test_an_engine_that_is_what_was_predicted_holds(judged: Callable[..., PolicyValidation]) -> None:
    validation = judged({})
    assert validation.holds
    assert [each.label for each in validation.settings] == list(LABELS)
    for setting in validation.settings:
        assert {each.place for each in setting.known} == {"inside"}
        assert all(each.value == each.predicted.value for each in setting.known)
        assert (setting.deviation, setting.drift, setting.others) == (0.0, None, 0.02)
        assert setting.errors.median == 0
    assert all(each.agrees for each in validation.preferences)
    assert not any(each.reversed for each in validation.orders.values())
    assert "66 of 66 measured metrics" in finding(validation, "intervals").text
    assert re.search(r"interval spans -\d+\.\d % to \+\d+\.\d % of its value\.", finding(validation, "intervals").text)
    assert finding(validation, "predicted again").text == "The same values come out here and now."
    assert finding(validation, "at the machine's pace").text.startswith("Not known: out/profile holds no designed")
    assert "ranked by capacity, which one replay does not measure" in finding(validation, "order").text


def test_an_engine_slower_than_the_intervals_falls_short_and_the_pace_says_why(
    judged: Callable[..., PolicyValidation], tmp_path: Path
) -> None:
    validation = judged({"slower": 1.3}, drift=dict.fromkeys(LABELS, 0.3))
    assert not validation.holds
    assert finding(validation, "intervals").holds is False
    assert re.search(r"\(\d+ above", finding(validation, "intervals").text)
    assert finding(validation, "order").holds
    assert all(each.place_at_pace == "inside" for setting in validation.settings for each in setting.known)
    assert finding(validation, "at the machine's pace").holds is None
    assert "(100.0 %). So the machine has changed its pace" in finding(validation, "at the machine's pace").text
    kept = json.loads((tmp_path / "validation.json").read_text(encoding="utf-8"))
    assert (kept["holds"], kept["coverage"]["at_pace"]) == (False, 1.0)
    assert kept["settings"][0]["metrics"]["TPOT P50"]["place"] == "above"


def test_a_slow_engine_on_a_machine_of_the_same_pace_is_not_excused(
    judged: Callable[..., PolicyValidation], prediction: Prediction
) -> None:
    validation = judged({"slower": 1.5}, drift={"sarathi-serve": 0.0}, settings=prediction.settings[:1])
    assert not validation.holds
    assert "the pace alone does not explain" in finding(validation, "at the machine's pace").text


def test_of_several_replays_the_median_counts(judged: Callable[..., PolicyValidation]) -> None:
    validation = judged({"slower": 3.0}, {}, {})
    assert validation.holds
    for each in validation.settings[0].known:
        assert len(each.measured) == 3
        assert each.value == each.predicted.value


def test_another_prediction_here_and_now_is_said(
    judged: Callable[..., PolicyValidation], prediction: Prediction
) -> None:
    off = {
        name: replace(each, value=each.value * 1.02, high=each.high * 1.02)
        for name, each in prediction.settings[0].metrics.items()
    }
    changed = (replace(prediction.settings[0], metrics=off), *prediction.settings[1:])
    text = finding(judged({}, settings=changed), "predicted again").text
    assert text.startswith("Here and now other values come out, up to 2.0 % apart (sarathi-serve-256)")


def test_a_winner_alone_is_judged_by_its_intervals(
    judged: Callable[..., PolicyValidation], prediction: Prediction
) -> None:
    validation = judged({}, settings=prediction.settings[:1], elsewhere=("orca",))
    assert [each.label for each in validation.settings] == ["sarathi-serve"]
    assert validation.holds
    assert not validation.preferences
    assert finding(validation, "elsewhere").text == "Runners-up on another deployment were not served: orca."


def of(prediction: Prediction, name: str) -> Interval:
    return prediction.settings[0].metrics[name]


def test_an_slo_that_holds_is_said_with_what_came_nearest(
    judged: Callable[..., PolicyValidation], prediction: Prediction, tmp_path: Path
) -> None:
    limit_ms = 1e3 * of(prediction, "TBT P99").high / 0.8
    validation = judged({"slower": 3.0}, {}, {}, slo=f"tbt:{limit_ms} delay:60000")
    text = finding(validation, "SLO").text
    assert finding(validation, "SLO").holds is True
    assert text.startswith("The winner held it as measured: nearest to its limit came P99 TBT ")
    off = of(prediction, "TBT P99").value / limit_ms * 1e3 - 1
    assert f", {-100 * off:.1f} % within." in text
    kept = json.loads((tmp_path / "validation.json").read_text(encoding="utf-8"))["settings"][0]["slo"]
    assert kept["held"]
    assert kept["off"] == pytest.approx(off)
    assert [margin > 0 for margin in kept["margins"]] == [True, False, False]


def test_an_slo_that_is_missed_falls_short_unless_its_interval_leaves_that_open(
    judged: Callable[..., PolicyValidation], prediction: Prediction
) -> None:
    interval = of(prediction, "TBT P99")
    validation = judged({"slower": 2.0}, slo=f"tbt:{1010 * interval.high} delay:60000")
    assert finding(validation, "SLO").holds is False
    assert re.match(r"The winner missed it as measured by \d+\.\d %: P99 TBT ", finding(validation, "SLO").text)
    assert "Runners-up that missed it: sarathi-serve-512 (P99 TBT " in finding(validation, "SLO").text
    assert validation.verdict[0].text.endswith("intervals and SLO.")
    left_open = judged({}, slo=f"tbt:{990 * interval.value} delay:60000")
    assert finding(left_open, "SLO").holds is None
    assert "as the predicted interval leaves open" in finding(left_open, "SLO").text
    assert left_open.holds


@pytest.mark.parametrize(("target_ms", "held"), [(1e6, True), (1e-3, False)])
def test_a_goodput_rule_is_an_slo_too(
    judged: Callable[..., PolicyValidation], prediction: Prediction, target_ms: float, held: bool
) -> None:
    validation = judged({}, goodput=f"ttft:{target_ms}", goodput_share=0.9, settings=prediction.settings[:1])
    assert finding(validation, "SLO").holds is held
    share = "goodput 100 %, 10.0 %" if held else "by 90.0 % of the requests: goodput 0 %"
    assert share in finding(validation, "SLO").text


def test_an_slo_that_cannot_be_read_is_refused(prediction: Prediction) -> None:
    with pytest.raises(InputError, match=r"p\.json, predicted, slo: cannot read the term 'P99'"):
        Judge.check(replace(prediction, slo="P99 TBT below 3 s"), where="p.json, predicted")
    with pytest.raises(InputError, match="predicted, goodput: cannot read"):
        Judge.check(replace(prediction, goodput="fast"), where="predicted")


def test_a_run_of_another_setting_is_refused(
    judged: Callable[..., PolicyValidation],
    judge: Judge,
    prediction: Prediction,
    workload: Workload,
    memory: KVMemory,
    tmp_path: Path,
) -> None:
    judged({})
    write_measured(tmp_path / "measured" / "vllm" / "1", workload, choose("orca"), memory)
    with pytest.raises(InputError, match="ran under"):
        judge.judge_policy(tmp_path, prediction, workload)


def test_what_people_see_fits_100_columns_and_is_the_same_on_the_page(
    judged: Callable[..., PolicyValidation], judge: Judge, tmp_path: Path
) -> None:
    validation = judged({"slower": 1.3}, {"slower": 1.2}, drift=dict.fromkeys(LABELS, 0.1))
    output = StringIO()
    judge.show(validation, console=Console(file=output, width=100, highlight=False))
    lines = output.getvalue().splitlines()
    assert max(map(len, lines)) <= 100
    assert any("TPOT P50" in line and "above!" in line for line in lines)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert all(label in page for label in LABELS)
    assert "It &lt;wins&gt;." in page
    assert 'id="intervals"' in page
    assert "&lt;policy&gt;.json" in page
    assert not re.search(r'src="http', page)


def test_a_prediction_is_judged_again_to_the_same_bytes(
    judged: Callable[..., PolicyValidation], prediction: Prediction, tmp_path: Path
) -> None:
    def made() -> list[bytes]:
        judged({"slower": 1.1}, drift={"sarathi-serve": 0.1}, settings=prediction.settings[:1])
        return [(tmp_path / name).read_bytes() for name in ("report.html", "validation.json")]

    assert made() == made()


@given(low=st.floats(1e-3, 1e3), wide=st.floats(0, 10), value=st.floats(1e-3, 1e4))
def test_a_value_lies_inside_above_or_below(low: float, wide: float, value: float) -> None:
    interval = Interval(value=low, low=low, high=low + wide)
    found = place(value, interval)
    assert (found == "inside") == (0.995 * low <= value <= 1.005 * (low + wide))
    promise = Promise(metric="TTFT P50", predicted=interval, at_pace=None, measured=(value,))
    assert (promise.off == 0) == (found == "inside")


def test_a_metric_that_was_not_measured_counts_nowhere() -> None:
    interval = Interval(value=1.0, low=1.0, high=1.0)
    assert not Promise(metric="Goodput", predicted=interval, at_pace=None, measured=(nan,)).known


@given(st.lists(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=3), min_size=2, max_size=2))
def test_two_settings_are_told_apart_alike_from_either_side(two: list[list[float]]) -> None:
    one, other = two
    assert equal(one, other) == equal(other, one)
    if max(one) < min(other) and min(other) > 1.06 * max(one):
        assert not equal(one, other)


def test_the_first_metric_in_which_both_tell_two_apart_decides() -> None:
    predicted = {"a": {"TBT P99": (1.0,), "TTFT P50": (2.0,)}, "b": {"TBT P99": (1.04,), "TTFT P50": (1.0,)}}
    measured = {"a": {"TBT P99": (1.0,), "TTFT P50": (2.0,)}, "b": {"TBT P99": (2.0,), "TTFT P50": (1.0,)}}
    (found,) = preferences(predicted, measured, ("TBT P99", "TTFT P50"))
    assert (found.by, found.predicted, found.measured, found.agrees) == ("TTFT P50", "b", "b", True)
    turned = {"a": measured["b"], "b": measured["a"]}
    (found,) = preferences(measured, turned, ("TBT P99", "TTFT P50"))
    assert (found.by, found.predicted, found.measured, found.agrees) == ("TBT P99", "a", "b", False)
    overlapping = {"a": measured["a"], "b": {"TBT P99": (0.9, 2.0, 2.1), "TTFT P50": (1.0,)}}
    (tied,) = preferences(measured, overlapping, ("TBT P99",))
    assert (tied.by, tied.agrees) == ("", True)
    orders = metric_orders(predicted, {"a": measured["b"], "b": measured["a"]})
    assert orders["TTFT P50"].reversed == 1
    assert orders["TTFT P50"].reversed_ties == 0
    assert orders["TBT P99"].reversed_ties == orders["TBT P99"].reversed == 1


def test_more_goodput_is_better_and_decides_where_it_was_wanted() -> None:
    runs = [{"Goodput, requests/s": (3.0,), "TBT P99": (1.0,)}, {"Goodput, requests/s": (2.0,), "TBT P99": (0.5,)}]
    assert deciding("goodput-per-gpu", runs) == ("Goodput, requests/s",)
    assert deciding("cost", runs) == ("TBT P99",)
    assert deciding(None, [{"TBT P99": (nan,), "TTFT P50": (1.0,)}]) == ("TTFT P50",)
    both = dict(zip("ab", runs, strict=True))
    (found,) = preferences(both, both, ("Goodput, requests/s",))
    assert found.predicted == found.measured == "a"


def test_the_plain_gpu_is_drawn_within_its_band() -> None:
    paces = [log(PlainGPU().drawn(draw).pace) for draw in range(400)]
    inside = sum(abs(each) < 0.1 for each in paces) / len(paces)
    assert 0.85 < inside < 0.95
    assert Engine().drawn(3).pace == PlainGPU().drawn(3).pace
