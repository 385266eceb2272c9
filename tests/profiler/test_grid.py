"""The designed grid: tile edges in pairs, contexts to the end, nothing a machine cannot hold."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.grid import Grid, cpu_grid, design, gpu_grid, token_counts
from profiler.model import load_model


def grid(tokens: int, edge: int) -> Grid:
    return Grid(tokens=tokens, sequences=8, context=512, edge=edge, kv_tokens=1024)


@settings(deadline=None)
@given(tokens=st.integers(1, 9000), edge=st.sampled_from([16, 32, 64, 128]))
def test_up_to_eight_tiles_each_edge_is_measured_with_its_neighbour(tokens: int, edge: int) -> None:
    counts = token_counts(grid(tokens, edge))
    assert counts == sorted(set(counts))
    assert counts[0] == 1
    assert counts[-1] <= tokens
    for tiles in range(1, 9):
        assert (tiles * edge in counts) == (tiles * edge <= tokens)
        assert (tiles * edge + 1 in counts) == (tiles * edge + 1 <= tokens)


def test_a_grid_of_tiles_stays_small() -> None:
    assert len(token_counts(grid(8192, 64))) < 90


@pytest.mark.parametrize("tp", [1, 2])
def test_every_op_of_the_model_is_measured(tp: int) -> None:
    model = load_model("llama-60m")
    shapes = design(model, cpu_grid(model), tp)
    assert len(shapes) == len(set(shapes)) < 400
    counts = Counter(shape.op for shape in shapes)
    assert set(counts) == {"gemm", "elementwise", "prefill_attention", "decode_attention"}
    products = {(shape.kind, shape.n, shape.k) for shape in shapes if shape.op == "gemm"}
    assert products == {tuple(linear) for linear in (*model.linears(tp), model.head_linear(tp))}
    kinds = {shape.kind for shape in shapes if shape.op == "elementwise"}
    assert kinds == {op.kind for op in model.elementwise(tp)} | {"embedding", "sampler"}


def test_attention_reaches_the_longest_context_and_no_further() -> None:
    model = load_model("llama-60m")
    shapes = design(model, cpu_grid(model))
    contexts = {
        op: [each.past_tokens + each.query_tokens for each in shapes if each.op == op]
        for op in ("prefill_attention", "decode_attention")
    }
    assert {op: max(values) for op, values in contexts.items()} == dict.fromkeys(contexts, model.max_position)
    assert any(shape.past_tokens == 0 for shape in shapes if shape.op == "prefill_attention")


def test_a_gpu_is_not_asked_for_more_kv_than_it_can_hold() -> None:
    model, memory_bytes = load_model("llama-3.1-8b"), 24 * 2**30
    shapes = design(model, gpu_grid(model, memory_bytes))
    tokens = max(shape.sequences * (shape.past_tokens + shape.query_tokens) for shape in shapes)
    assert 2 * tokens * model.kv_heads * model.head_dim * model.dtype_bytes < memory_bytes / 8
    assert max(shape.m for shape in shapes) == 8193 - 1


def test_flops_of_a_shape_are_those_of_the_op() -> None:
    model = load_model("llama-60m")
    shapes = design(model, cpu_grid(model))
    product = next(shape for shape in shapes if (shape.op, shape.kind, shape.m) == ("gemm", "down_proj", 128))
    assert product.flops == 2 * 128 * 512 * 1376
    decode = next(shape for shape in shapes if shape.op == "decode_attention" and shape.past_tokens == 1023)
    assert decode.flops == 4 * decode.sequences * 8 * 64 * 1024
