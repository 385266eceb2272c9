"""Predictions with intervals: what one candidate does under one very workload, by draws of the cost model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from math import nan

import pytest

from policies.catalog import choose
from policies.prediction import Interval
from simulator.prediction import PREDICTED, intervals, predict
from simulator.trials.candidate import Candidate
from simulator.trials.outcome import Outcome
from simulator.trials.plan import Answer, carry_out
from simulator.trials.trial import Trial
from traces.demand import Demand
from traces.errors import InputError
from traces.goodput import parse_goodput

CHAT = Demand(source="chat", num_prompts=24)
CANDIDATE = Candidate(choice=choose("sarathi-serve"), model="mistral-7b", device="a100-sxm", max_model_len=CHAT.longest)


@cache
def known() -> Outcome:
    return Trial(candidate=CANDIDATE, demand=CHAT.first(2), rate_per_s=2.0).run()


def outcome(value: float) -> Outcome:
    metrics = {"TTFT P50": value, "Goodput": nan, "KV use, max": 0.5}
    return replace(known(), metrics=metrics)


def test_the_value_is_the_fitted_models_and_the_interval_lies_between_ranks_of_draws() -> None:
    asked: list[Trial] = []

    def run(trials: Sequence[Trial]) -> list[Answer]:
        asked.extend(trials)
        return [outcome(10.0 if each.cost_draw is None else float(each.cost_draw)) for each in trials]

    found = carry_out(predict(CANDIDATE, CHAT, 2.0, 7, 39), run)
    assert found.metrics == {"TTFT P50": Interval(value=10.0, low=1.0, high=37.0)}
    assert found.outcome == outcome(10.0)
    assert [each.cost_draw for each in asked] == [None, *range(39)]
    assert {(each.rate_per_s, each.seed, each.demand) for each in asked} == {(2.0, 7, CHAT)}


@pytest.mark.parametrize(("draws", "low", "high"), [([], 5.0, 5.0), ([1.0], 1.0, 5.0), ([6.0, 9.0], 5.0, 9.0)])
def test_an_interval_always_holds_the_value(draws: list[float], low: float, high: float) -> None:
    found = intervals({"TBT P99": 5.0}, [{"TBT P99": each} for each in draws])["TBT P99"]
    assert (found.low, found.value, found.high) == (low, 5.0, high)


def test_a_candidate_that_cannot_serve_is_an_error() -> None:
    with pytest.raises(InputError, match="too long"):
        carry_out(predict(CANDIDATE, CHAT, 2.0, 0, 2), lambda trials: [InputError("too long") for _ in trials])


def test_a_real_prediction_holds_its_values_and_is_made_again_to_the_last_digit() -> None:
    goodput = parse_goodput("ttft:500 tpot:50")
    found, again = (carry_out(predict(CANDIDATE, CHAT, 2.0, 3, 5, goodput=goodput)) for _ in range(2))
    assert repr(found) == repr(again)
    assert set(found.metrics) == set(PREDICTED)
    assert all(found.outcome.metrics[name] == each.value for name, each in found.metrics.items())
    assert found.metrics["TPOT P50"].low < found.metrics["TPOT P50"].high
