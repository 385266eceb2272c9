"""The columns of a workload and its prefix hashes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from traces.errors import InputError
from traces.workload import HashIds, Workload

RAGGED = st.lists(st.lists(st.integers(0, 2**40), max_size=5), min_size=1, max_size=8)


def hash_ids(rows: list[list[int]], block_size: int = 512) -> HashIds:
    return HashIds(
        offsets=np.cumsum([0, *(len(row) for row in rows)], dtype=np.int64),
        values=np.array([value for row in rows for value in row], dtype=np.int64),
        block_size=block_size,
    )


def workload(arrival_s: list[float], **more: object) -> Workload:
    count = len(arrival_s)
    lengths = {"prompt_tokens": np.arange(1, count + 1), "output_tokens": np.arange(11, count + 11)}
    return Workload(name="w", arrival_s=np.array(arrival_s), **(lengths | more))


@given(RAGGED, st.data())
def test_hashes_are_taken_with_their_requests(rows, data):
    order = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=10))
    taken = hash_ids(rows).take(np.array(order, dtype=np.intp))
    assert [taken.of(index).tolist() for index in range(len(order))] == [rows[one] for one in order]


def test_kv_blocks_within_a_hash_block_are_told_apart_and_shared_with_it():
    hashes = hash_ids([[3, 9], [3, 4]], block_size=64)
    first, second = hashes.of_blocks(0, 100, 16).tolist(), hashes.of_blocks(1, 128, 16).tolist()
    assert len(first) == 100 // 16
    assert len(second) == 8
    assert first[:4] == second[:4]
    assert not set(first[4:]) & set(second)
    assert len(set(second)) == 8


def test_kv_blocks_of_several_hash_blocks_are_named_by_the_last():
    hashes = hash_ids([[1, 2, 3, 4, 5]], block_size=16)
    assert hashes.of_blocks(0, 70, 16).tolist() == [1, 2, 3, 4]
    assert hashes.of_blocks(0, 70, 32).tolist() == [2, 4]
    assert hashes.of_blocks(0, 80, 16).tolist() == [1, 2, 3, 4, 5]


def test_kv_blocks_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="do not fit KV blocks of 24"):
        hash_ids([[1]], block_size=64).of_blocks(0, 64, 24)


def test_a_window_starts_its_own_clock_and_leaves_its_end_out():
    kept = workload([0.0, 1.0, 2.0, 3.0]).window(1.0, 3.0)
    assert kept.arrival_s.tolist() == [0.0, 1.0]
    assert kept.prompt_tokens.tolist() == [2, 3]


def test_scaling_divides_every_gap():
    twice = workload([0.0, 1.0, 3.0]).scaled(2.0)
    assert twice.arrival_s.tolist() == [0.0, 0.5, 1.5]
    assert twice.rate_per_s == pytest.approx(2 * workload([0.0, 1.0, 3.0]).rate_per_s)


@pytest.mark.parametrize("factor", [0.0, -1.0, math.nan, math.inf])
def test_a_factor_that_is_none_is_refused(factor):
    with pytest.raises(InputError, match="rate factor"):
        workload([0.0, 1.0]).scaled(factor)


def test_a_head_longer_than_the_workload_is_all_of_it():
    assert len(workload([0.0, 1.0]).head(5)) == 2
    assert workload([0.0, 1.0]).head(1).total_tokens.tolist() == [12]
