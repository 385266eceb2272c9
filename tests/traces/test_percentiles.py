from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from traces.percentiles import Distribution, counted_percentiles

TIMES = st.floats(0, 1e4, allow_nan=False, width=64)
COUNTED = st.lists(st.tuples(TIMES, st.integers(1, 40)), min_size=1, max_size=60)


@given(samples=COUNTED, percent=st.floats(0, 100))
def test_counted_percentiles_are_those_of_the_expanded_sample(samples, percent):
    values, counts = (np.array(column) for column in zip(*samples, strict=True))
    expected = np.percentile(np.repeat(values, counts), percent)
    assert counted_percentiles(values, counts, percent)[0] == expected


@given(samples=COUNTED)
def test_a_counted_distribution_is_that_of_the_expanded_sample(samples):
    values, counts = (np.array(column) for column in zip(*samples, strict=True))
    counted, plain = Distribution.of_counts(values, counts), Distribution.of(np.repeat(values, counts))
    assert math.isclose(counted.mean, plain.mean, rel_tol=1e-12, abs_tol=1e-300)
    for name in ("count", "p50", "p90", "p95", "p99", "max"):
        assert getattr(counted, name) == getattr(plain, name), name


@given(samples=st.lists(st.tuples(st.integers(0, 9), st.integers(1, 20)), min_size=1, max_size=30))
def test_percentiles_over_time_are_the_inverted_distribution(samples):
    values, seconds = (np.array(column) for column in zip(*samples, strict=True))
    made = Distribution.over_time(values, seconds.astype(float))
    each_second = np.repeat(values, seconds)
    for percent, got in ((50, made.p50), (90, made.p90), (95, made.p95), (99, made.p99)):
        assert got == np.percentile(each_second, percent, method="inverted_cdf")
    assert math.isclose(made.mean, each_second.mean(), abs_tol=1e-12)


def test_what_held_for_no_time_does_not_count():
    made = Distribution.over_time(np.array([5.0, 1e9]), np.array([2.0, 0.0]))
    assert (made.count, made.mean, made.max) == (1, 5.0, 5.0)


def test_without_samples_nothing_is_known():
    nothing = np.array([])
    for made in (
        Distribution.of(nothing),
        Distribution.of_counts(nothing, nothing),
        Distribution.over_time(nothing, nothing),
    ):
        assert made.count == 0
        assert all(math.isnan(value) for value in (made.mean, made.p50, made.p90, made.p99, made.max))
