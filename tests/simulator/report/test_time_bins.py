from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from simulator.time_bins import TimeBins

SAMPLES = st.lists(st.tuples(st.floats(-1, 11, allow_nan=False), st.integers(0, 50), st.integers(1, 9)), max_size=60)


def columns(samples):
    return [np.array([row[index] for row in samples], float) for index in range(3)]


def members(bins, times, index):
    low, high = bins.edges_s[index : index + 2]
    last = index == len(bins) - 1
    return (times >= low) & ((times <= high) if last else (times < high))


@given(samples=SAMPLES, count=st.integers(1, 7), share=st.sampled_from([0.01, 0.5, 0.9, 0.99, 1.0]))
def test_each_bin_has_the_mean_and_quantile_of_what_lies_in_it(samples, count, share):
    times, values, counts = columns(samples)
    bins = TimeBins(edges_s=np.linspace(0, 10, count + 1))
    means = bins.mean(times, values)
    maximum, quantiles = bins.quantiles(bins.place(times), values, counts, [1.0, share])
    for index in range(count):
        mine = members(bins, times, index)
        if not mine.any():
            assert np.isnan(means[index])
            assert np.isnan(quantiles[index])
            continue
        expanded = np.repeat(values[mine], counts[mine].astype(int))
        assert np.isclose(means[index], values[mine].mean())
        assert maximum[index] == values[mine].max()
        assert quantiles[index] == np.percentile(expanded, 100 * share, method="inverted_cdf")


def test_a_run_that_goes_on_for_hours_does_not_squeeze_the_others(played):
    runs = played("faster-transformer", "sarathi-serve")
    shortest = min(run.end_s - run.start_s for run in runs.values())
    bins = TimeBins.of_runs(runs)
    assert len(bins) == 240
    assert bins.end_s == 1.5 * shortest
    assert "faster-transformer until" in bins.cut(runs)
    assert "sarathi-serve until" not in bins.cut(runs)
    alone = {"sarathi-serve": runs["sarathi-serve"]}
    assert TimeBins.of_runs(alone).cut(alone) == ""
