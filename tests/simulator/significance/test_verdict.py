"""Verdicts on values whose truth is known: how often they are wrong, and what they find."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.catalog import choose
from simulator.significance.metrics import JUDGED, compare_paired, corrected
from simulator.significance.verdict import Verdict, paired
from simulator.trials.candidate import Candidate
from simulator.trials.outcome import Outcome
from simulator.trials.trial import Trial
from traces.demand import Demand

TIMES = 500
VALUES = st.lists(st.tuples(st.floats(0.01, 100), st.floats(0.01, 100)), min_size=2, max_size=12)
COUNTS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=12)


def share(found: Callable[[np.random.Generator], bool]) -> float:
    rng = np.random.default_rng(0)
    return float(np.mean([found(rng) for _ in range(TIMES)]))


def runs(rng: np.random.Generator, count: int, effect: float, *, cost: float) -> tuple[np.ndarray, ...]:
    """A, B and the same with the cost model as fitted; on the machine A is exp(effect) times B.

    ``cost`` is the standard deviation of what the cost model's errors do to the difference; the machine is a draw.
    """
    b = np.exp(rng.normal(0, 0.2, count))
    fitted = b * np.exp(effect - cost * rng.standard_normal() + rng.normal(0, 0.05, count))
    return fitted * np.exp(cost * rng.standard_normal(count)), b, fitted, b


@pytest.mark.parametrize("count", [5, 10, 20])
def test_of_equals_one_is_called_better_as_often_as_the_level_says(count: int) -> None:
    def wrong(rng: np.random.Generator) -> bool:
        a, b, *_ = runs(rng, count, 0.0, cost=0.0)
        return paired(a, b, least_difference=0.0).winner is not None

    assert 0.03 < share(wrong) < 0.07


@pytest.mark.parametrize("count", [5, 10, 20])
@pytest.mark.parametrize("cost", [0.02, 0.05, 0.2])
def test_an_error_of_the_cost_model_does_not_average_out(count: int, cost: float) -> None:
    def held(rng: np.random.Generator) -> bool:
        a, b, *fitted = runs(rng, count, 0.1, cost=cost)
        verdict = paired(a, b, fitted=(fitted[0], fitted[1]))
        return verdict.low <= 0.1 <= verdict.high

    def held_by_the_mean(rng: np.random.Generator) -> bool:
        a, b, *_ = runs(rng, count, 0.1, cost=cost)
        verdict = paired(a, b)
        return verdict.low <= 0.1 <= verdict.high

    assert share(held) == pytest.approx(0.95, abs=0.025)
    if cost > 0.02:
        assert share(held_by_the_mean) < 0.85


def test_a_difference_is_found() -> None:
    def right(rng: np.random.Generator) -> bool:
        a, b, *fitted = runs(rng, 10, -0.1, cost=0.01)
        return paired(a, b, fitted=(fitted[0], fitted[1])).winner == "A"

    assert share(right) > 0.95


def test_averages_differ_by_the_difference() -> None:
    verdict = paired(*runs(np.random.default_rng(0), 10, 0.3, cost=0.0)[:2])
    assert verdict.mean_a / verdict.mean_b == pytest.approx(np.exp(verdict.difference))


def test_the_variances_are_told_apart() -> None:
    verdict = paired(*runs(np.random.default_rng(0), 4000, 0.0, cost=0.1)[:2])
    assert verdict.seed_variance == pytest.approx(0.05**2 + 0.1**2, rel=0.1)
    assert np.isnan(verdict.cost_share)
    a, b, *fitted = runs(np.random.default_rng(0), 4000, 0.0, cost=0.1)
    verdict = paired(a, b, fitted=(fitted[0], fitted[1]))
    assert verdict.cost_share == pytest.approx(0.1**2 / (0.05**2 + 0.1**2), rel=0.05)


@cache
def some_outcome() -> Outcome:
    candidate = Candidate(choice=choose("orca"), model="mistral-7b", device="a100-sxm", max_model_len=8192)
    return Trial(candidate=candidate, demand=Demand(source="chat", num_prompts=2), rate_per_s=1.0).run()


def outcome(values: dict[str, float]) -> Outcome:
    return replace(some_outcome(), metrics=values)


def test_many_metrics_of_equals_are_all_left_alone() -> None:
    """Half of what the metrics scatter by is common to them, as in a run."""
    names = [metric.name for metric in JUDGED]

    def wrong(rng: np.random.Generator) -> bool:
        sides = []
        for _ in range(2):
            scatter = 0.05 * (rng.standard_normal((10, 1)) + rng.standard_normal((10, len(names))))
            sides.append([outcome(dict(zip(names, np.exp(row), strict=True))) for row in scatter.tolist()])
        return any(each.winner for each in compare_paired(*sides, least_difference=0.0).values())

    rng = np.random.default_rng(1)
    assert np.mean([wrong(rng) for _ in range(200)]) <= 0.06


def test_a_metric_that_is_not_there_is_not_judged() -> None:
    nan = [outcome({metric.name: np.nan if metric.name == "Goodput" else 1.0 for metric in JUDGED})] * 3
    found = compare_paired(nan, nan)
    assert set(found) == {metric.name for metric in JUDGED} - {"Goodput"}
    assert all(verdict.equal for verdict in found.values())


@given(st.one_of(VALUES, COUNTS))
def test_the_other_way_round_it_says_the_same(pairs: list[tuple[float, float]]) -> None:
    a, b = ([float(value) for value in each] for each in zip(*pairs, strict=True))
    one, other = paired(a, b), paired(b, a)
    assert other.difference == pytest.approx(-one.difference, abs=1e-12)
    assert (other.low, other.high) == pytest.approx((-one.high, -one.low), abs=1e-9)
    assert other.p_value == pytest.approx(one.p_value)
    swapped = {"A": "B", "B": "A", None: None}
    assert other.winner == swapped[one.winner]
    assert paired(a, b, better="high").winner == swapped[one.winner]
    if one.winner is not None:
        assert one.low > one.least or one.high < -one.least or one.pairs > 5


def test_what_differs_by_less_than_the_least_is_equal() -> None:
    b = np.linspace(1, 2, 10)
    assert paired(1.004 * b, b).equal
    assert paired(1.004 * b, b).text() == "equal"
    assert paired(1.004 * b, b, least_difference=0.001).text("new", "old") == "old is better"
    assert paired(1.004 * b, b, least_difference=0.001, better="high").text("new", "old") == "new is better"


def test_pairs_that_all_differ_by_the_same_say_what_their_signs_say() -> None:
    assert paired([2.0] * 5, [1.0] * 5).p_value == 2**-4
    assert paired([2.0] * 5, [1.0] * 5).winner is None
    assert paired([2.0] * 10, [1.0] * 10).winner == "B"


def test_counts_that_may_be_none_are_compared_by_their_difference() -> None:
    verdict = paired([0, 0, 0, 0, 0], [3, 5, 4, 6, 4])
    assert not verdict.ratio
    assert verdict.difference == pytest.approx(-4.4)
    assert verdict.least == pytest.approx(0.005 * 2.2)
    assert verdict.winner == "A"
    assert paired([0.0] * 3, [0.0] * 3).equal


def undecided(**changes: float) -> Verdict:
    fields = {"pairs": 10, "difference": 0.03, "low": -0.01, "high": 0.07, "p_value": 0.2, "least": 0.005}
    fields |= {"mean_a": 1.0, "mean_b": 1.0, "level": 0.05, "seed_variance": 0.01, "cost_variance": 0.0}
    return Verdict(better="low", ratio=True, **fields | changes)  # type: ignore[arg-type]


def test_what_would_decide() -> None:
    assert undecided().wants == "more seeds"
    assert undecided(cost_variance=float("nan")).wants == "more seeds"
    assert undecided(cost_variance=0.02**2, seed_variance=1e-4).wants == "longer runs or a better profile"
    assert undecided(difference=0.2, cost_variance=0.02**2, seed_variance=1e-4).wants == "more seeds"
    assert undecided(p_value=0.01).wants == ""
    assert undecided(difference=0.0, low=-0.001, high=0.001).wants == ""


def test_too_few_or_broken_pairs_are_a_mistake_of_the_caller() -> None:
    for a, b in (([1.0], [1.0]), ([1.0, 2.0], [1.0]), ([1.0, np.nan], [1.0, 1.0])):
        with pytest.raises(ValueError, match="two pairs"):
            paired(a, b)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_corrected_p_values_keep_their_order_and_only_grow(p_values: list[float]) -> None:
    given_ = {str(index): value for index, value in enumerate(p_values)}
    found = corrected(given_)
    assert list(found) == list(given_)
    assert all(given_[name] <= found[name] <= min(1.0, len(p_values) * given_[name]) for name in found)
    ascending = sorted(found, key=lambda name: given_[name])
    assert all(found[one] <= found[next_] for one, next_ in pairwise(ascending))


def test_holm_by_hand() -> None:
    found = corrected({"a": 0.01, "b": 0.04, "c": 0.03})
    assert found == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06})
