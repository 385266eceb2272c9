"""Length distributions: their bounds, their shapes, their seeds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from traces.errors import InputError
from traces.lengths import (
    FixedLengths,
    LognormalLengths,
    TraceLengths,
    UniformLengths,
    ZipfLengths,
)

LENGTH = st.integers(1, 100_000)


def draw(lengths, count=50_000, seed=3):
    return lengths.draw(count, np.random.default_rng(seed))


@settings(max_examples=50, deadline=None)
@given(LENGTH, LENGTH, LENGTH, LENGTH, st.integers(0, 2**32))
def test_uniform_lengths_stay_within_their_bounds_and_repeat_by_seed(a, b, c, d, seed):
    lengths = UniformLengths(prompt_min=min(a, b), prompt_max=max(a, b), output_min=min(c, d), output_max=max(c, d))
    prompt, output = draw(lengths, 100, seed)
    assert prompt.dtype == output.dtype == np.int64
    assert min(a, b) <= prompt.min() <= prompt.max() <= max(a, b)
    assert min(c, d) <= output.min() <= output.max() <= max(c, d)
    np.testing.assert_array_equal(prompt, draw(lengths, 100, seed)[0])


def test_uniform_lengths_reach_both_bounds():
    prompt, output = draw(UniformLengths(prompt_min=3, prompt_max=6, output_min=1, output_max=2), 1000)
    assert set(prompt.tolist()) == {3, 4, 5, 6}
    assert set(output.tolist()) == {1, 2}


def test_fixed_lengths():
    prompt, output = draw(FixedLengths(prompt_tokens=7, output_tokens=2), 3)
    assert (prompt.tolist(), output.tolist()) == ([7, 7, 7], [2, 2, 2])


def test_zipf_totals_follow_their_law():
    lengths = ZipfLengths(theta=0.8, total_min=10, total_max=19, prompt_to_output=1.5)
    prompt, output = draw(lengths)
    seen = np.bincount(prompt + output, minlength=20)[10:] / 50_000
    law = np.arange(1, 11) ** -0.8
    np.testing.assert_allclose(seen, law / law.sum(), atol=0.006)
    assert (np.abs(prompt - 1.5 * output) <= 2.5).all()


def test_the_zipf_workload_of_sarathi():
    prompt, output = draw(ZipfLengths())
    total = prompt + output
    assert (total.min(), total.max()) == (1024, 4096)
    assert (prompt / output).mean() == pytest.approx(10.0, rel=0.01)


@given(LENGTH, LENGTH, st.floats(0.0, 10.0), st.floats(1e-3, 1e3))
@settings(max_examples=50, deadline=None)
def test_zipf_lengths_are_at_least_one_and_within_their_bounds(a, b, theta, ratio):
    least, most = min(a, b) + 1, max(a, b) + 1
    lengths = ZipfLengths(theta=theta, total_min=least, total_max=most, prompt_to_output=ratio)
    prompt, output = draw(lengths, 200)
    assert prompt.min() >= 1
    assert output.min() >= 1
    assert least <= (prompt + output).min() <= (prompt + output).max() <= most


@settings(max_examples=25, deadline=None)
@given(st.floats(300, 5000), st.floats(1.3, 5.0), st.floats(300, 2000), st.floats(1.3, 4.0), st.floats(1.05, 30))
def test_lognormal_percentiles_hold_under_a_limit(p50, p_spread, o50, o_spread, room):
    p90, o90 = p50 * p_spread, o50 * o_spread
    limit = int((p90 + o90) * room) + 1
    lengths = LognormalLengths(prompt_p50=p50, prompt_p90=p90, output_p50=o50, output_p90=o90, total_max=limit)
    try:
        prompt, output = draw(lengths, 30_000)
    except InputError:
        assume(False)
    assert (prompt + output).max() <= limit
    for column, wanted in ((prompt, (p50, p90)), (output, (o50, o90))):
        shares = [np.mean(column <= mark) for mark in wanted]
        assert shares == pytest.approx([0.5, 0.9], abs=0.03)


def test_lognormal_lengths_are_drawn_again_and_do_not_pile_up_at_the_limit():
    lengths = LognormalLengths(prompt_p50=1730, prompt_p90=5696, output_p50=415, output_p90=834, total_max=8192)
    prompt, output = draw(lengths)
    last_percent = np.mean(prompt + output > 8192 * 0.99)
    assert last_percent < 0.01


def test_lognormal_lengths_without_a_limit():
    lengths = LognormalLengths(prompt_p50=100, prompt_p90=1000, output_p50=10, output_p90=20)
    prompt, output = draw(lengths)
    assert np.percentile(prompt, [50, 90]) == pytest.approx([100, 1000], rel=0.05)
    assert np.percentile(output, [50, 90]) == pytest.approx([10, 20], rel=0.05)


@pytest.mark.parametrize(
    ("p90", "limit"),
    [(1900.0, 2000), (1900.0, 1500), (1990.0, 2100)],
)
def test_percentiles_too_near_the_limit_are_refused(p90, limit):
    lengths = LognormalLengths(prompt_p50=100, prompt_p90=p90, output_p50=99, output_p90=100, total_max=limit)
    with pytest.raises(InputError, match="no lognormal lengths have these percentiles"):
        draw(lengths, 10)


def test_lengths_of_a_trace_are_kept_in_pairs_and_each_drawn_once_a_round(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text("prompt_tokens,output_tokens\n" + "".join(f"{i},{i * 10}\n" for i in range(1, 101)))
    prompt, output = draw(TraceLengths(path=str(path)), 250)
    np.testing.assert_array_equal(output, prompt * 10)
    assert sorted(prompt[:100].tolist()) == sorted(prompt[100:200].tolist()) == list(range(1, 101))
    assert prompt[:100].tolist() != list(range(1, 101))


@pytest.mark.parametrize(
    "make",
    [
        lambda: FixedLengths(prompt_tokens=0, output_tokens=1),
        lambda: FixedLengths(prompt_tokens=1, output_tokens=2**31),
        lambda: UniformLengths(prompt_min=5, prompt_max=4, output_min=1, output_max=1),
        lambda: ZipfLengths(total_min=1),
        lambda: ZipfLengths(total_max=2**31 - 1),
        lambda: ZipfLengths(theta=-1.0),
        lambda: ZipfLengths(theta=float("nan")),
        lambda: ZipfLengths(prompt_to_output=0.0),
        lambda: LognormalLengths(prompt_p50=5, prompt_p90=5, output_p50=1, output_p90=2),
        lambda: LognormalLengths(prompt_p50=5, prompt_p90=6, output_p50=1, output_p90=float("inf")),
        lambda: LognormalLengths(prompt_p50=5, prompt_p90=6, output_p50=1, output_p90=2, total_max=0),
    ],
)
def test_settings_that_are_none_are_refused(make):
    with pytest.raises(InputError, match="expected"):
        make()
