"""The physics of attention: how kernels split contexts, and what one launch over chunks and decodes costs."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler import prefill_attention
from profiler.attention_fit import move_attention
from profiler.decode_attention import COEFFICIENTS, physics, splits_of
from profiler.decode_time import DecodeAttention
from profiler.deployment import Deployment
from profiler.device import load_device
from profiler.fit import fit_op, rows_of
from profiler.fitted import FittedOp
from profiler.importers import import_tables
from profiler.model import load_model
from profiler.op import DECODE_ATTENTION, MIXED_ATTENTION, PREFILL_ATTENTION, Op
from profiler.physics_fit import fit_physics
from profiler.prefill_time import PrefillAttention
from profiler.tile import Floats
from profiler.transfer import load_shipped

A100 = load_device("a100-sxm")
DEPLOYMENT = Deployment(model=load_model("llama-3.1-8b"), device="a100-sxm")


class Chunk(NamedTuple):
    tokens: int
    past: int


def _shape(**columns: float) -> dict[str, Floats]:
    return {key: np.asarray([value], dtype=np.float64) for key, value in columns.items()}


LAYOUT = {"heads": 32.0, "kv_heads": 8.0, "head_dim": 128.0, "element_bytes": 2.0}


@given(st.integers(1, 5000), st.integers(1, 2000))
def test_contexts_are_split_into_useful_parts(blocks: int, tiles: int) -> None:
    slots = 216.0
    splits = float(splits_of(np.asarray([float(blocks)]), np.asarray([float(tiles)]), slots)[0])
    assert 1 <= splits <= tiles
    if blocks >= 0.8 * slots:
        assert splits == 1


def test_one_sequence_is_split_over_the_multiprocessors() -> None:
    assert splits_of(np.asarray([8.0]), np.asarray([256.0]), 216.0)[0] > 20


def test_known_decode_physics_is_found_again() -> None:
    truth = {name: float(np.clip(1.3 * start, low, high)) for name, (start, low, high, _) in COEFFICIENTS.items()}
    draws = np.random.default_rng(0)
    shape = {key: np.full(400, value) for key, value in LAYOUT.items()}
    shape["sequences"], shape["past_tokens"] = 2.0 ** draws.integers(0, 9, 400), 2.0 ** draws.integers(4, 15, 400)
    time_s = physics(truth, shape, A100)
    found = fit_physics(DECODE_ATTENTION, shape, time_s, A100)
    assert np.median(np.abs(physics(found, shape, A100) / time_s - 1)) < 0.02


@pytest.mark.parametrize(("decodes", "context"), [(1, 128), (8, 1024), (64, 4096), (256, 512)])
def test_the_grid_of_decodes_gives_what_the_op_predicts(decodes: int, context: int) -> None:
    op = load_shipped("a100-sxm").ops["decode_attention"]
    shape = _shape(sequences=decodes, past_tokens=context - 1, **LAYOUT)
    alone = DecodeAttention(DEPLOYMENT, op, 512).time(decodes, decodes * context, context)
    assert alone == pytest.approx(float(op.predict(shape, A100)[0]), rel=1e-3)


@given(tokens=st.integers(2, 8192), past=st.integers(0, 100_000), packed=st.sampled_from([0.0, 1.0]))
def test_a_chunk_costs_what_the_op_predicts(tokens: int, past: int, packed: float) -> None:
    """Between the sizes of the grid, waves and tiles of the physics are steps that the grid walks up as a slope."""
    prefill = PrefillAttention(DEPLOYMENT, _prefill(packed), 8192)
    shape = _shape(sequences=1, query_tokens=tokens, past_tokens=past, **LAYOUT)
    expected = float(PREFILL_ATTENTION.physics(_prefill(packed).coefficients, shape, A100)[0])
    assert prefill.alone(tokens, past) == pytest.approx(expected, rel=0.15)


@pytest.mark.parametrize("packed", [0.0, 1.0])
def test_nine_in_ten_chunks_cost_what_the_op_predicts_within_a_percent(packed: float) -> None:
    draws, prefill = np.random.default_rng(0), PrefillAttention(DEPLOYMENT, _prefill(packed), 8192)
    tokens, past = np.rint(2 ** draws.uniform(1, 13, 500)), np.rint(2 ** draws.uniform(0, 17, 500) - 1)
    alone = np.asarray([prefill.alone(int(t), int(p)) for t, p in zip(tokens, past, strict=True)])
    columns = {key: np.full(500, value) for key, value in LAYOUT.items()} | {"sequences": np.ones(500)}
    shape = columns | {"query_tokens": tokens, "past_tokens": past}
    miss = np.abs(alone / PREFILL_ATTENTION.physics(_prefill(packed).coefficients, shape, A100) - 1)
    assert np.median(miss) < 0.002
    assert np.quantile(miss, 0.9) < 0.01


def _prefill(packed: float) -> FittedOp:
    coefficients = {name: limits[0] for name, limits in prefill_attention.COEFFICIENTS.items()}
    return FittedOp(name="prefill_attention", coefficients=coefficients | {prefill_attention.PACKED: packed})


@given(chunks=st.lists(st.tuples(st.integers(2, 4096), st.integers(0, 30_000)), min_size=2, max_size=6))
def test_a_launch_takes_as_long_as_any_of_its_chunks(chunks: list[tuple[int, int]]) -> None:
    prefill = PrefillAttention(DEPLOYMENT, _prefill(1.0), 4096)
    alone = [prefill.alone(tokens, past) for tokens, past in chunks]
    assert prefill.time([Chunk(tokens, past) for tokens, past in chunks]) >= max(alone) * (1 - 1e-9)


@pytest.mark.parametrize("packed", [0.0, 1.0])
def test_the_kernel_of_prefills_is_found_again(packed: float) -> None:
    truth = {
        name: float(np.clip(1.3 * limits[0], *limits[1:3])) for name, limits in prefill_attention.COEFFICIENTS.items()
    }
    draws = np.random.default_rng(0)
    shape = {"head_dim": np.full(300, 128.0), "element_bytes": np.full(300, 2.0)}
    shape |= {"kv_heads": 2.0 ** draws.integers(0, 4, 300), "past_tokens": np.zeros(300)}
    shape["heads"] = shape["kv_heads"] * 2.0 ** draws.integers(0, 4, 300)
    shape["sequences"], shape["query_tokens"] = 2.0 ** draws.integers(0, 7, 300), 2.0 ** draws.integers(4, 13, 300)
    time_s = prefill_attention.physics(truth | {prefill_attention.PACKED: packed}, shape, A100)
    found = fit_physics(PREFILL_ATTENTION, shape, time_s, A100)
    assert found[prefill_attention.PACKED] == packed
    assert np.median(np.abs(prefill_attention.physics(found, shape, A100) / time_s - 1)) < 0.02


def test_kernels_that_pack_split_contexts_where_one_sequence_leaves_multiprocessors_idle() -> None:
    one = prefill_attention.Launch.of(_shape(sequences=64, query_tokens=1024, past_tokens=0, **LAYOUT), A100, True)
    few = _shape(sequences=64, query_tokens=1024, past_tokens=0, **(LAYOUT | {"heads": 4.0, "kv_heads": 1.0}))
    assert one.split[0] == 0
    assert prefill_attention.Launch.of(few, A100, True).split[0] == 1
    assert prefill_attention.Launch.of(few, A100, False).split[0] == 0


def test_writing_kv_costs_a_block_a_token_whatever_it_holds_beyond_its_threads() -> None:
    def write_s(kv_heads: float) -> float:
        layout = LAYOUT | {"kv_heads": kv_heads, "heads": 64.0}
        shape = _shape(sequences=8, query_tokens=512, past_tokens=0, **layout)
        return float(prefill_attention.Launch.of(shape, A100, False).write_s[0])

    assert write_s(4) == 2 * write_s(2)
    assert write_s(8) == write_s(4)


def test_planning_on_the_device_ends_with_its_most_sequences() -> None:
    start = {name: limits[0] for name, limits in COEFFICIENTS.items()}
    hopper = load_device("h100")
    few, many = (_shape(sequences=n, past_tokens=0, **LAYOUT) for n in (992, 993))
    assert physics(start, few, hopper)[0] > 1.05 * physics(start, many, hopper)[0]
    assert physics(start, few, A100)[0] < physics(start, many, A100)[0]


@pytest.mark.parametrize("op", [PREFILL_ATTENTION, DECODE_ATTENTION])
def test_few_rows_move_the_physics_of_another_device(op: Op) -> None:
    """Everything takes half as long again but for launches, which take twice as long: ten rows tell the difference."""
    limits = prefill_attention.COEFFICIENTS if op is PREFILL_ATTENTION else COEFFICIENTS
    source = {name: each[0] for name, each in limits.items()} | {prefill_attention.PACKED: 0.0}
    truth = {
        name: value * (1.5 if limits[name][2] == np.inf else 1) for name, value in source.items() if name in limits
    }
    truth |= {"launch": 2 * source["launch"], prefill_attention.PACKED: 0.0}
    draws = np.random.default_rng(1)
    shape = {key: np.full(200, value) for key, value in LAYOUT.items()}
    shape["sequences"], shape["query_tokens"] = 2.0 ** draws.integers(0, 9, 200), 2.0 ** draws.integers(4, 12, 200)
    shape["past_tokens"] = 2.0 ** draws.integers(4, 14, 200)
    time_s = op.physics(truth, shape, A100)
    few = {key: values[:10] for key, values in shape.items()}
    moved = move_attention(op, source, few, time_s[:10], A100)
    scaled = 1.5 * op.physics(source, shape, A100)
    miss, miss_of_scaled = (np.abs(np.log(each / time_s)) for each in (op.physics(moved, shape, A100), scaled))
    assert np.median(miss) < 0.03
    assert np.quantile(miss, 0.9) < np.quantile(miss_of_scaled, 0.9)


def test_only_attention_is_moved_term_by_term() -> None:
    with pytest.raises(ValueError, match="is not attention"):
        move_attention(MIXED_ATTENTION, {}, {}, np.ones(1), A100)


def test_mixed_launches_of_a_real_engine(data: Path) -> None:
    """RTX 4090 under vLLM 0.19: one launch is predicted, and it is not the sum of two."""
    device = load_device("rtx-4090")
    table = import_tables(data / "profiles/llmservingsim/RTX4090", "rtx-4090").table
    shape, time_s = rows_of(table, MIXED_ATTENTION)
    rows = np.random.default_rng(0).choice(len(time_s), 2000, replace=False)
    fitted = fit_op(MIXED_ATTENTION, {key: values[rows] for key, values in shape.items()}, time_s[rows], device)
    assert fitted.errors["unseen rows"]["median"] < 0.06
    assert fitted.errors["unseen rows"]["time_weighted"] < 0.1
