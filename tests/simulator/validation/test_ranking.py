"""Winners and orders, where who comes first is known."""

from __future__ import annotations

from math import isnan, nan

import pytest

from simulator.validation.agreement import Batches, Case, IterationErrors, Pair
from simulator.validation.ranking import Winner, noise_of, order, overall

ERRORS = IterationErrors(iterations=0, median=nan, p90=nan, by_time=nan, bias=nan, total=nan, coverage=nan)
BATCHES = Batches(measured=0, simulated=0, same=0, first_different=None, leading=0)


def cases(*pairs: tuple[float, float]) -> list[Case]:
    return [
        Case(
            load="below",
            policy=f"policy {index}",
            metrics={"TTFT P50": Pair(measured=measured, predicted=predicted)},
            errors=ERRORS,
            by_kind={},
            batches=BATCHES,
            drift=None,
        )
        for index, (measured, predicted) in enumerate(pairs)
    ]


@pytest.mark.parametrize(
    ("pairs", "tau", "reversed_", "ties", "reversed_ties"),
    [
        ([(1, 10), (2, 20), (3, 30)], 1.0, 0, 0, 0),
        ([(1, 30), (2, 20), (3, 10)], -1.0, 3, 0, 0),
        ([(1, 10), (2, 30), (3, 20)], 1 / 3, 1, 0, 0),
        ([(1, 10), (2.0, 31), (2.02, 30)], 1 / 3, 1, 1, 1),
        ([(1, 10), (2.0, 30), (2.02, 31)], 1.0, 0, 1, 0),
    ],
    ids=["agree", "opposite", "one pair", "one tie reversed", "one tie"],
)
def test_order(pairs: list[tuple[float, float]], tau: float, reversed_: int, ties: int, reversed_ties: int) -> None:
    found = order(cases(*pairs), "TTFT P50", 0.03)
    assert found.tau == pytest.approx(tau)
    assert (found.pairs, found.reversed, found.ties, found.reversed_ties) == (3, reversed_, ties, reversed_ties)


@pytest.mark.parametrize("pairs", [[(1, 2)], [(1, 2), (1, 3)], [(1, 2), (nan, 3)], []])
def test_no_order_where_there_is_nothing_to_order(pairs: list[tuple[float, float]]) -> None:
    assert isnan(order(cases(*pairs), "TTFT P50", 0.03).tau)


def winner(load: str, measured: str, predicted: str, keep_measured: int, keep_predicted: int) -> Winner:
    return Winner(
        load=load,
        measured=measured,
        predicted=predicted,
        keep_up_measured=("a",) * keep_measured,
        keep_up_predicted=("a",) * keep_predicted,
        cost={},
        tie=False,
    )


def test_over_all_loads_the_highest_that_anyone_keeps_up_with_counts() -> None:
    found = {
        "below": winner("below", "a", "b", 3, 3),
        "near": winner("near", "c", "d", 1, 1),
        "above": winner("above", "e", "f", 0, 1),
    }
    assert overall(found) == ("c", "f")


def test_where_no_one_ever_keeps_up_the_lowest_load_counts() -> None:
    assert overall({"near": winner("near", "a", "b", 0, 0), "above": winner("above", "c", "d", 0, 0)}) == ("a", "b")


def test_noise_is_the_iteration_error_within_reason() -> None:
    assert noise_of(0.03) == 0.03
    assert noise_of(0.0) == noise_of(nan) == 0.005
    assert noise_of(0.4) == pytest.approx(0.05)
