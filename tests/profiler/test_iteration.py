"""Designed iterations: within their limits, all over the space, and read as a cost model reads batches."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.grid import Grid, cpu_grid, gpu_grid
from profiler.iteration import (
    DECODES,
    ENDS_PROMPT,
    GOES_ON,
    DesignedBatch,
    decode_contexts,
    design_iterations,
    kv_blocks,
    shapes_of,
)
from profiler.kernels import OpShape
from profiler.model import load_model

MODEL = load_model("llama-60m")
GRID = cpu_grid(MODEL)


@pytest.mark.parametrize("model", ["llama-60m", "llama-3.1-8b", "qwen3-32b"])
def test_designed_iterations_stay_within_the_grid(model: str) -> None:
    spec = load_model(model)
    grid = gpu_grid(spec, 80 * 2**30)
    shapes = design_iterations(spec, grid)
    assert len(shapes) > 50
    held = 4 * grid.kv_tokens // spec.layers
    for shape in shapes:
        batch = DesignedBatch(shape)
        assert 1 <= batch.prefill_tokens + batch.decodes == shape.m
        assert batch.prefill_tokens <= grid.tokens + 8
        assert shape.decodes <= grid.sequences
        assert max([shape.past_tokens + shape.query_tokens, *decode_contexts(shape)]) < grid.context
        assert sum(decode_contexts(shape)) <= 1.1 * held + shape.decodes


def test_decodes_prompts_and_both_together_are_all_there() -> None:
    shapes = design_iterations(MODEL, GRID)
    kinds = {(shape.kind, shape.decodes > 0, shape.past_tokens > 0, shape.sequences > 1) for shape in shapes}
    for kind in (ENDS_PROMPT, GOES_ON):
        assert {(kind, decodes, True, False) for decodes in (False, True)} <= kinds
        assert any(key[0] == kind and key[3] for key in kinds)
    assert (DECODES, True, False, False) in kinds
    tokens = sorted(shape.m for shape in shapes)
    assert tokens[0] < 5
    assert tokens[len(tokens) // 2] < 150
    assert tokens[-1] > 500


def test_the_design_is_the_same_each_time_and_another_for_another_seed() -> None:
    assert design_iterations(MODEL, GRID) == design_iterations(MODEL, GRID)
    assert design_iterations(MODEL, GRID) != design_iterations(MODEL, GRID, seed=1)


def test_a_small_kv_cache_bounds_what_a_batch_holds() -> None:
    for shape in design_iterations(MODEL, GRID, kv_tokens=1024):
        assert kv_blocks(shape, 16) * 16 <= 1024 * 1.1 + 32 * (shape.decodes + shape.sequences)


@given(decodes=st.integers(1, 64), mean=st.integers(8, 4096))
def test_contexts_are_spread_around_their_mean(decodes: int, mean: int) -> None:
    shape = OpShape(op="iteration", kind=DECODES, m=decodes, decodes=decodes, decode_context=mean)
    contexts = decode_contexts(shape)
    assert len(contexts) == decodes
    assert sum(contexts) == pytest.approx(decodes * mean, abs=decodes)
    assert mean // 2 <= min(contexts) <= max(contexts) <= 1.5 * mean + 1


def test_a_designed_batch_has_the_aggregates_of_a_batch() -> None:
    numbers = {"sequences": 3, "query_tokens": 20, "past_tokens": 64, "decodes": 4, "decode_context": 100}
    batch = DesignedBatch(OpShape(op="iteration", kind=ENDS_PROMPT, m=64, **numbers))
    assert [(chunk.tokens, chunk.past) for chunk in batch.chunks] == [(20, 64)] * 3
    assert (batch.prefill_tokens, batch.decodes, batch.outputs) == (60, 4, 7)
    assert (batch.decode_context_sum, batch.decode_context_max) == (400, 150)
    going_on = DesignedBatch(OpShape(op="iteration", kind=GOES_ON, m=64, **numbers))
    assert going_on.outputs == 4


def test_shapes_come_back_from_the_rows_of_a_profile() -> None:
    from profiler.profile import ops_table

    shapes = design_iterations(MODEL, Grid(tokens=64, sequences=4, context=128, edge=64, kv_tokens=512))
    names = OpShape.__dataclass_fields__
    columns = {name: [getattr(shape, name) for shape in shapes] for name in names}
    rows = ops_table(len(shapes), time_s=1.0, **columns).to_pylist()
    assert list(shapes_of(rows)) == shapes
