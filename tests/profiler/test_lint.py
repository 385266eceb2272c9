"""No row faster than the device can be is let through, and none that it can reach is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.device import load_device
from profiler.lint import COMPUTE, HOT, LAYOUT, LINK, MEMORY, NO_TIME, SLOW, TOLERANCE, Roofline, lint, reached
from profiler.profile import ops_table

A100 = load_device("a100-sxm")
BANDWIDTH = A100.memory_bandwidth_bytes_per_s


def reason(time_s: float, **columns: Any) -> str | None:
    """Why the row is refused, None if it is kept."""
    kept, refused = lint(ops_table(1, dtype="bfloat16", time_s=[time_s], **columns), A100)
    assert kept.num_rows + sum(refused.values()) == 1
    return next(iter(refused), None)


def gemm_floor_s(m: int, n: int, k: int) -> float:
    moved = 2 * (m * k + n * k + m * n) / BANDWIDTH
    return max(2 * m * n * k / A100.peak_flops, moved)


sizes = st.integers(1, 20000)


@settings(deadline=None)
@given(m=sizes, n=sizes, k=sizes, share=st.floats(0.01, 5.0))
def test_a_product_is_kept_exactly_if_it_does_not_beat_the_roofline(m: int, n: int, k: int, share: float) -> None:
    refused = reason(gemm_floor_s(m, n, k) * share, op="gemm", m=m, n=n, k=k)
    if share > 1 - TOLERANCE + 1e-9:
        assert refused is None
    elif share < 1 - TOLERANCE - 1e-9:
        assert refused in {f"gemm: {why}" for why in (COMPUTE, MEMORY, HOT)}


def test_a_product_whose_operands_fit_into_the_cache_is_hot_and_a_larger_one_impossible() -> None:
    small, large = (1, 4096, 4096), (1, 8192, 8192)
    assert 2 * 4096 * 4096 < A100.l2_bytes < 2 * 8192 * 8192
    assert reason(gemm_floor_s(*small) / 2, op="gemm", m=1, n=4096, k=4096) == f"gemm: {HOT}"
    assert reason(gemm_floor_s(*large) / 2, op="gemm", m=1, n=8192, k=8192) == f"gemm: {MEMORY}"
    assert reason(1e-6, op="gemm", m=4096, n=4096, k=4096) == f"gemm: {COMPUTE}"


@settings(deadline=None)
@given(
    sequences=st.integers(1, 256),
    past=st.integers(0, 100_000),
    kv_heads=st.sampled_from([1, 4, 8, 32]),
    share=st.floats(0.1, 3),
)
def test_a_decode_must_read_the_kv_of_its_past(sequences: int, past: int, kv_heads: int, share: float) -> None:
    kv_bytes = 2 * 2 * sequences * past * kv_heads * 128
    flops = 4 * sequences * 32 * 128 * (past + 1)
    floor_s = max(kv_bytes / BANDWIDTH, flops / A100.peak_flops)
    shape = {"sequences": sequences, "query_tokens": 1, "past_tokens": past, "heads": 32, "kv_heads": kv_heads}
    refused = reason(floor_s * share, op="decode_attention", head_dim=128, **shape)
    if share > 1 - TOLERANCE + 1e-9:
        assert refused is None
    elif share < 1 - TOLERANCE - 1e-9:
        assert refused is not None
        assert refused.removeprefix("decode_attention: ") in (HOT, MEMORY, COMPUTE)


def test_a_prefill_counts_the_pairs_of_its_past_and_of_itself() -> None:
    shape = {"sequences": 2, "query_tokens": 512, "past_tokens": 1024, "heads": 32, "kv_heads": 8, "head_dim": 128}
    flops = 4 * 2 * 32 * 128 * (512 * 1024 + 512 * 513 / 2)
    assert reason(flops / A100.peak_flops, op="prefill_attention", **shape) is None
    assert reason(0.9 * flops / A100.peak_flops, op="prefill_attention", **shape) == f"prefill_attention: {COMPUTE}"


def test_a_mixed_batch_must_do_both_its_parts() -> None:
    shape = {"sequences": 1, "query_tokens": 128, "past_tokens": 0, "heads": 32, "kv_heads": 8, "head_dim": 128}
    shape |= {"decodes": 64, "decode_context": 8193}
    kv_s = 2 * 2 * 64 * 8192 * 8 * 128 / BANDWIDTH
    assert reason(kv_s, op="mixed_attention", **shape) is None
    assert reason(kv_s / 2, op="mixed_attention", **shape) == f"mixed_attention: {MEMORY}"


def test_an_elementwise_op_finds_in_the_cache_what_fits_there() -> None:
    fits, double = A100.l2_bytes, 2 * A100.l2_bytes
    assert reason(1e-9, op="elementwise", size_bytes=fits) is None
    assert reason(0.9 * A100.l2_bytes / BANDWIDTH, op="elementwise", size_bytes=double) is not None


def test_what_is_sent_must_cross_the_link() -> None:
    size_bytes = 2**28
    floor_s = size_bytes / A100.link_bandwidth_bytes_per_s
    for op in ("all_reduce", "send"):
        assert reason(floor_s, op=op, gpus=2, size_bytes=size_bytes) is None
        assert reason(floor_s / 2, op=op, gpus=2, size_bytes=size_bytes) == f"{op}: {LINK}"


def test_overhead_may_take_any_time_but_none() -> None:
    assert reason(1e-9, op="overhead") is None
    assert reason(0.0, op="overhead") == f"overhead: {NO_TIME}"


def test_refusals_are_counted_by_op_and_reason_and_the_rest_keeps_its_order() -> None:
    times = [0.1, 0.0, 0.2, 1e-9, 0.3, 0.0]
    kept, refused = lint(ops_table(6, op="gemm", dtype="bfloat16", m=64, n=8192, k=8192, time_s=times), A100)
    assert kept["time_s"].to_pylist() == [0.1, 0.2, 0.3]
    assert refused == {f"gemm: {NO_TIME}": 2, f"gemm: {COMPUTE}": 1}


def test_a_roofline_serves_as_well_as_a_device() -> None:
    rows = ops_table(1, op="gemm", dtype="bfloat16", m=64, n=8192, k=8192, time_s=[1e-6])
    assert lint(rows, A100)[1] == lint(rows, Roofline.of(A100))[1] != {}


@pytest.mark.parametrize(("dtype", "kept"), [("float32", False), ("bfloat16", True)])
def test_wider_elements_are_more_bytes(dtype: str, kept: bool) -> None:
    time_s = 1.2 * gemm_floor_s(1, 8192, 8192)
    rows = ops_table(1, op="gemm", dtype=dtype, m=1, n=8192, k=8192, time_s=[time_s])
    assert bool(lint(rows, A100)[0].num_rows) is kept


def test_what_was_reached_is_the_best_rate_of_any_row() -> None:
    sizes = {"m": [1, 4096], "n": [8192, 4096], "k": [8192, 4096]}
    rows = ops_table(2, op="gemm", dtype="bfloat16", time_s=[1e-3, 1e-2], **sizes)
    flops_per_s, bytes_per_s = reached(rows, Roofline.of(A100))
    assert flops_per_s == pytest.approx(2 * 4096**3 / 1e-2)
    assert bytes_per_s == pytest.approx(2 * (8192 * 8192 + 2 * 8192) / 1e-3)
    assert reached(ops_table(1, op="overhead", time_s=[1.0]), Roofline.of(A100)) == (0.0, 0.0)


def test_more_kv_heads_than_heads_and_a_time_without_end_are_slips() -> None:
    row = {"op": "decode_attention", "sequences": 4, "query_tokens": 1, "past_tokens": 999, "head_dim": 128}
    assert reason(1e-4, heads=8, kv_heads=8, **row) is None
    assert reason(1e-4, heads=8, kv_heads=9, **row) == f"decode_attention: {LAYOUT}"
    assert reason(1.0, heads=8, kv_heads=8, **row) == f"decode_attention: {SLOW}"
