"""Arrival processes: their rates, their shapes, their seeds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from traces.arrivals import (
    AllAtOnce,
    ConstantArrivals,
    GammaArrivals,
    PoissonArrivals,
    TraceArrivals,
    arrivals_at,
)
from traces.errors import InputError

RATES = st.floats(1e-3, 1e5)


def draw(arrivals, count=20_000, seed=7):
    return arrivals.draw(count, np.random.default_rng(seed))


@settings(max_examples=50, deadline=None)
@given(RATES, st.floats(0.05, 50.0), st.integers(1, 200), st.integers(0, 2**32))
def test_arrivals_start_at_zero_ascend_and_repeat_by_seed(rate, burstiness, count, seed):
    for arrivals in (
        AllAtOnce(),
        ConstantArrivals(request_rate=rate),
        PoissonArrivals(request_rate=rate),
        GammaArrivals(request_rate=rate, burstiness=burstiness),
    ):
        arrival_s = draw(arrivals, count, seed)
        assert arrival_s.shape == (count,)
        assert arrival_s[0] == 0.0
        assert np.isfinite(arrival_s).all()
        assert (np.diff(arrival_s) >= 0).all()
        np.testing.assert_array_equal(arrival_s, draw(arrivals, count, seed))


def test_poisson_gaps_are_exponential_and_none_is_cut():
    gaps = np.diff(draw(PoissonArrivals(request_rate=4.0)))
    assert stats.kstest(gaps * 4.0, "expon").pvalue > 0.01
    assert gaps.mean() == pytest.approx(0.25, rel=0.03)
    assert np.count_nonzero(gaps > 3 / 4.0) == pytest.approx(len(gaps) * math.exp(-3), rel=0.15)


@pytest.mark.parametrize("burstiness", [0.25, 1.0, 4.0])
def test_gamma_gaps_have_the_burstiness_as_their_shape(burstiness):
    gaps = np.diff(draw(GammaArrivals(request_rate=2.0, burstiness=burstiness)))
    assert stats.kstest(gaps, "gamma", args=(burstiness, 0, 0.5 / burstiness)).pvalue > 0.01
    assert gaps.std() / gaps.mean() == pytest.approx(burstiness**-0.5, rel=0.05)


def test_constant_arrivals():
    assert draw(ConstantArrivals(request_rate=4.0), 4).tolist() == [0.0, 0.25, 0.5, 0.75]


@given(RATES, RATES)
def test_one_seed_draws_the_same_gaps_at_every_rate(one, other):
    slow, fast = draw(PoissonArrivals(request_rate=one), 50), draw(PoissonArrivals(request_rate=other), 50)
    np.testing.assert_allclose(slow * one, fast * other, rtol=1e-12)


@pytest.fixture
def trace(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text("arrival_s,prompt_tokens,output_tokens\n5,1,1\n6,1,1\n6,1,1\n9,1,1\n")
    return str(path)


def test_the_gaps_of_a_trace_are_kept_and_repeated(trace):
    assert draw(TraceArrivals(path=trace), 4).tolist() == [0.0, 1.0, 1.0, 4.0]
    assert draw(TraceArrivals(path=trace), 6).tolist() == [0.0, 1.0, 1.0, 4.0, 5.0, 5.0]
    assert draw(TraceArrivals(path=trace), 1).tolist() == [0.0]


def test_the_gaps_of_a_trace_are_scaled_to_a_mean_rate(trace):
    arrival_s = draw(TraceArrivals(path=trace, request_rate=3.0), 4)
    assert arrival_s.tolist() == pytest.approx([0.0, 0.25, 0.25, 1.0])


def test_a_trace_without_gaps_is_refused(tmp_path):
    path = tmp_path / "lengths.csv"
    path.write_text("prompt_tokens,output_tokens\n1,1\n2,2\n")
    with pytest.raises(InputError, match="all requests arrive at once"):
        draw(TraceArrivals(path=str(path)), 4)


def test_what_vllm_options_mean():
    assert arrivals_at(None) is None
    assert arrivals_at(math.inf) == AllAtOnce()
    assert arrivals_at(2.0) == PoissonArrivals(request_rate=2.0)
    assert arrivals_at(2.0, 0.5) == GammaArrivals(request_rate=2.0, burstiness=0.5)
    for rate in (None, math.inf):
        with pytest.raises(InputError, match="burstiness"):
            arrivals_at(rate, 0.5)


@pytest.mark.parametrize("rate", [0.0, -1.0, math.nan, math.inf, 1e300])
@pytest.mark.parametrize("kind", [ConstantArrivals, PoissonArrivals, GammaArrivals])
def test_a_rate_that_is_none_is_refused(kind, rate):
    with pytest.raises(InputError, match="request rate"):
        kind(request_rate=rate)


@pytest.mark.parametrize("burstiness", [0.0, -1.0, math.nan, math.inf])
def test_a_burstiness_that_is_none_is_refused(burstiness):
    with pytest.raises(InputError, match="burstiness"):
        GammaArrivals(request_rate=1.0, burstiness=burstiness)
