"""The search by itself, on formulas."""

from math import exp, inf, log

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.capacity.bracket import Bracket, log_tolerance

TOLERANCE = log_tolerance(0.025)


def searched(margin, *, guess=0.0, ceiling=inf, slope=None, most=40):
    bracket = Bracket(guess=guess, tolerance=TOLERANCE, floor=-7.0, top=7.0, ceiling=ceiling, slope=slope)
    for _ in range(most):
        if (x := bracket.next_x()) is None:
            break
        bracket.add(x, margin(x))
    return bracket


@given(
    crossing=st.floats(-6.9, 6.9),
    guess=st.floats(-3, 3),
    slope=st.floats(0.05, 100),
    hint=st.none() | st.floats(0.2, 20),
)
def test_a_line_is_crossed_within_the_tolerance(crossing, guess, slope, hint):
    bracket = searched(lambda x: slope * (x - crossing), guess=guess, slope=hint)
    assert bracket.low_x - 1e-9 <= crossing <= bracket.high_x + 1e-9
    assert bracket.width <= TOLERANCE
    assert bracket.low_x - 1e-9 <= bracket.crossing() <= bracket.high_x + 1e-9


@given(crossing=st.floats(-6.9, 6.9), below=st.floats(-20, 0), above=st.floats(1e-9, 20))
def test_a_cliff_is_found(crossing, below, above):
    bracket = searched(lambda x: below if x <= crossing else above)
    assert bracket.low_x <= crossing <= bracket.high_x
    assert bracket.width <= TOLERANCE
    assert len(bracket.points) <= 3 * 10 + 2


@settings(max_examples=40)
@given(st.lists(st.floats(-2, 2), min_size=40, max_size=40))
def test_whatever_the_margin_does_what_holds_is_below_what_fails(values):
    left = iter(values)
    bracket = searched(lambda _: next(left))
    held = [x for x, margin in bracket.points if margin <= 0 and x < bracket.high_x]
    assert bracket.low_x == max(held, default=-inf)
    assert bracket.high_x == min((x for x, margin in bracket.points if margin > 0), default=inf)
    assert bracket.unmet or bracket.unlimited or bracket.width <= TOLERANCE or len(bracket.points) == 40


def test_a_smooth_margin_takes_few_points():
    """The P99 TBT of a policy that stalls, about: as the square of the rate, with a guess that is off by 2.5."""
    bracket = searched(lambda x: 2 * (x + log(2.5)) + 0.3 * (x + log(2.5)) ** 2)
    assert bracket.width <= TOLERANCE
    assert len(bracket.points) <= 6


def test_what_never_holds_ends_at_the_floor():
    bracket = searched(lambda _: 3.0)
    assert bracket.unmet
    assert bracket.crossing() == -inf
    assert len(bracket.points) == 3


def test_the_last_look_is_at_the_floor_where_all_has_failed():
    bracket = Bracket(guess=0.0, tolerance=TOLERANCE, floor=-7.0, top=7.0)
    for margin in (2.0, 0.6, 0.25):
        bracket.add(bracket.next_x(), margin)
    assert bracket.next_x() > bracket.next_x(last=True) == -7.0
    bracket.add(-7.0, -0.1)
    assert bracket.low_x == -7.0 < bracket.crossing() < bracket.points[2].x


@given(cliff=st.floats(0.01, 0.3), rise=st.floats(0.001, 5), most=st.floats(-0.01, -1e-6))
def test_a_margin_that_is_flat_up_to_a_cliff_is_halved(cliff, rise, most):
    """Three looks tell that it is flat; then each halves what is left of 0.32 below the ceiling."""
    bracket = searched(lambda x: most if x <= cliff else rise, ceiling=0.32)
    assert bracket.low_x <= cliff <= bracket.high_x
    assert bracket.width <= TOLERANCE
    assert len(bracket.points) <= 8


def test_a_flat_margin_far_from_zero_holds_up_to_the_ceiling():
    assert len(searched(lambda _: -0.7, ceiling=0.22).points) == 2


def test_what_always_holds_ends_at_the_top():
    bracket = searched(lambda _: -3.0)
    assert bracket.unlimited
    assert not bracket.unmet


@pytest.mark.parametrize("ceiling", [0.3, 2.0, -3.0])
def test_nothing_is_looked_at_beyond_the_ceiling(ceiling):
    bracket = searched(lambda _: -1.0, ceiling=ceiling)
    assert all(point.x < ceiling for point in bracket.points)
    assert bracket.width <= TOLERANCE
    assert exp(bracket.crossing()) == pytest.approx(exp(ceiling))
