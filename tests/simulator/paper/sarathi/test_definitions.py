"""What the experiments compute, against plain arithmetic."""

from __future__ import annotations

import pytest

from simulator.paper.sarathi.chunk_overhead import slowdown, worst
from simulator.paper.sarathi.pd_ratio import expected_peak, peak
from simulator.paper.sarathi.speedup import falling
from simulator.paper.sarathi.table_4 import ROWS, bandwidth_share, missing_s
from tests.simulator.paper.sarathi.test_decoding import Weights


def test_where_weights_are_all_a_prompt_takes_as_many_times_as_it_has_chunks() -> None:
    assert slowdown(Weights(), 64, 1024) == pytest.approx(16)
    assert slowdown(Weights(), 300, 1024) == pytest.approx(4)
    assert worst(Weights(), 1024) == pytest.approx(3)


def test_where_tokens_cost_all_chunks_cost_the_weights_of_the_others() -> None:
    assert slowdown(Weights(token_s=1.0), 256, 1024) == pytest.approx((4 * 36 + 1024) / (36 + 1024))


def test_falling_counts_neighbours_in_batch_and_in_length() -> None:
    assert falling({1: {2: 9.0, 4: 5.0}, 2: {2: 6.0}}) == 1.0
    assert falling({1: {2: 9.0, 4: 9.5}, 2: {2: 6.0}}) == 0.5


def test_the_expected_peak_is_that_of_the_paper() -> None:
    assert round(expected_peak(256, 18)) == 15
    assert peak({1.0: 1.1, 2.0: 1.3, 3.0: 1.2}) == 2.0


def test_table_2_reads_the_cache_of_four_decodes() -> None:
    """4 x 1,024 tokens of 819,200 bytes in 5.68 ms, of 768 GB/s."""
    assert bandwidth_share() == pytest.approx(4096 * 819_200 / 5.68e-3 / 768e9)


def test_what_is_missing_has_the_sign_of_the_deviation() -> None:
    """LLaMA-33B's decodes are too cheap here, LLaMA-13B's too dear."""
    assert [missing_s(row) > 0 for row in ROWS] == [False] * 3 + [True] * 3
