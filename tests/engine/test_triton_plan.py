from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.attention.triton_plan import (
    MIXED_SPLIT_TOKENS,
    PARTIAL_BYTES,
    PROGRAMS_PER_PROCESSOR,
    SPLIT_TOKENS,
    Device,
    Plan,
    Tiling,
    choose_splits,
    choose_tiling,
    padded_dim,
    plan_launch,
)

LARGE = Device(processors=132, shared_bytes=227 * 1024)
SMALL = Device(processors=20, shared_bytes=99 * 1024)


def plan(tokens: int, sequences: int, max_context_len: int, *, device: Device = LARGE, **others: object) -> Plan:
    settings = {"heads": 32, "kv_heads": 8, "head_dim": 128, "dtype": torch.bfloat16, "max_query_len": None}
    settings |= {"window": None} | others
    return plan_launch(
        tokens=tokens,
        sequences=sequences,
        max_context_len=max_context_len,
        device=device,
        **settings,  # type: ignore[arg-type]
    )


def test_a_lone_long_decode_fills_the_device() -> None:
    found = plan(1, 1, 32768)
    assert found.single
    assert found.tiles == 1
    programs = found.splits * 8
    assert PROGRAMS_PER_PROCESSOR * 132 * 0.8 < programs <= PROGRAMS_PER_PROCESSOR * 132
    assert plan(1, 1, 32768, device=SMALL).splits < found.splits


def test_many_decodes_or_short_ones_stay_whole() -> None:
    assert plan(64, 64, 32768, max_query_len=1).splits == 1
    assert plan(1, 1, SPLIT_TOKENS).splits == 1
    assert plan(1, 1, 4 * SPLIT_TOKENS).splits == 4


def test_chunks_without_past_stay_whole_and_a_long_decode_beside_them_does_not() -> None:
    assert plan(2048, 2, MIXED_SPLIT_TOKENS, max_query_len=1024).splits == 1
    assert plan(8192, 1, 8192).splits == 1
    assert plan(520, 9, 32768, max_query_len=512).splits > 1


def test_a_short_chunk_after_a_long_past_is_split() -> None:
    assert plan(16, 1, 32768).splits > 8


def test_a_window_leaves_no_long_context_to_split() -> None:
    assert plan(1, 1, 32768, window=SPLIT_TOKENS).splits == 1
    assert plan(1, 1, 32768, window=4 * SPLIT_TOKENS).splits == 4


def test_a_given_number_of_splits_is_kept() -> None:
    assert plan(1, 1, 4096, num_splits=8).splits == 8
    assert plan(1, 1, 64, num_splits=8).splits == 1, "no split is shorter than one step"


def test_rows_follow_the_work() -> None:
    def rows(group: int, max_query_len: int, head_dim: int = 128, dtype: torch.dtype = torch.bfloat16) -> int:
        return choose_tiling(
            group=group, max_query_len=max_query_len, head_dim=head_dim, dtype=dtype, shared_bytes=227 * 1024
        ).block_m

    assert [rows(4, tokens) for tokens in (1, 4, 5, 16, 17, 4096)] == [16, 16, 64, 64, 128, 128]
    assert rows(71, 1) == 128
    assert rows(4, 4096, head_dim=256) == 64
    assert rows(4, 4096, dtype=torch.float32) == 16


@given(st.integers(1, 128), st.integers(1, 8192), st.integers(1, 256), st.sampled_from([torch.float32, torch.float16]))
def test_a_tiling_fits_into_shared_memory(group: int, max_query_len: int, head_dim: int, dtype: torch.dtype) -> None:
    shared_bytes = 99 * 1024
    found = choose_tiling(
        group=group, max_query_len=max_query_len, head_dim=head_dim, dtype=dtype, shared_bytes=shared_bytes
    )
    row_bytes = padded_dim(head_dim) * dtype.itemsize
    if found.num_stages > 1:
        assert (found.block_m + 2 * found.block_n * found.num_stages) * row_bytes <= shared_bytes
    assert found.block_m >= group


@given(st.lists(st.integers(0, 70), min_size=1, max_size=20), st.sampled_from([1, 2, 5, 16]))
def test_there_are_tiles_for_all_tokens(query_lens: list[int], tile_tokens: int) -> None:
    tokens = max(1, sum(query_lens))
    tiling = Tiling(block_m=4 * tile_tokens, block_n=16, num_warps=4, num_stages=1)
    found = plan(tokens, len(query_lens), 128, max_query_len=max(query_lens), tiling=tiling)
    assert found.tiles >= sum(-(-length // tile_tokens) for length in query_lens)
    assert found.tiles <= tokens // tile_tokens + len(query_lens)


@given(st.integers(1, 4096), st.integers(1, 131072), st.integers(1, 264), st.booleans(), st.integers(1, PARTIAL_BYTES))
def test_splits_keep_their_bounds(programs: int, span: int, processors: int, mixed: bool, split_bytes: int) -> None:
    splits = choose_splits(programs=programs, span=span, processors=processors, mixed=mixed, split_bytes=split_bytes)
    assert splits >= 1
    if splits > 1:
        assert splits * split_bytes <= PARTIAL_BYTES
        assert splits * programs <= PROGRAMS_PER_PROCESSOR * processors
        assert span // splits >= (MIXED_SPLIT_TOKENS if mixed else SPLIT_TOKENS)


@given(st.integers(1, 5000), st.integers(1, 64))
def test_there_are_no_more_splits_than_the_longest_context_has_use_for(context: int, num_splits: int) -> None:
    found = plan(1, 1, context, num_splits=num_splits)
    assert found.splits <= num_splits
    assert (found.splits - 1) * found.least_split < context


def test_a_tile_too_small_for_the_group_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot hold one token"):
        plan(1, 1, 64, heads=32, kv_heads=1, tiling=Tiling(block_m=16, block_n=16, num_warps=4, num_stages=1))
