"""Sketches in characters."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from traces.sketch import BARS, PLAIN_BARS, arrival_counts, bars, length_counts
from traces.workload import Workload


@given(st.lists(st.integers(0, 10**9), max_size=80))
def test_one_bar_a_count_and_only_zero_is_blank(counts):
    for plain, levels in ((False, BARS), (True, PLAIN_BARS)):
        drawing = bars(counts, plain=plain)
        assert len(drawing) == len(counts)
        for count, bar in zip(counts, drawing, strict=True):
            assert (bar == " ") == (count == 0)
            assert bar in levels
        if any(counts):
            assert drawing[int(np.argmax(counts))] == levels[-1]


def test_bars_grow_with_their_counts():
    assert bars([0, 1, 2, 3, 4, 5, 6, 7, 8]) == BARS
    assert PLAIN_BARS.isascii()


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50), st.integers(1, 20))
def test_every_request_is_counted_once(arrival_s, width):
    lengths = np.arange(1, len(arrival_s) + 1)
    workload = Workload(name="w", arrival_s=np.sort(np.array(arrival_s)), prompt_tokens=lengths, output_tokens=lengths)
    assert arrival_counts(workload, width).sum() == len(arrival_s)
    assert length_counts(lengths, width).sum() == len(arrival_s)
