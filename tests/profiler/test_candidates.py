"""What a plan starts with, and what it chooses from."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.candidates import (
    EDGE,
    LONGEST,
    MIXED,
    SPACE_FILLING,
    Candidates,
    iteration_candidates,
    op_candidates,
    steps,
)
from profiler.grid import Grid, cpu_grid, gpu_grid
from profiler.model import load_model

SMALL = load_model("llama-60m")
LARGE = load_model("llama-3.1-8b")
GRIDS = {"cpu": (SMALL, cpu_grid(SMALL)), "gpu": (LARGE, gpu_grid(LARGE, 80 * 2**30))}


@pytest.fixture(scope="module", params=GRIDS)
def found(request: pytest.FixtureRequest) -> tuple[Grid, Candidates]:
    model, grid = GRIDS[request.param]
    return grid, op_candidates(model, grid)


def test_edges_are_measured_on_both_sides(found: tuple[Grid, Candidates]) -> None:
    grid, candidates = found
    edges = [shape for shape, why in candidates.start.items() if why == EDGE]
    pairs = Counter((shape.n, shape.k, (shape.m - shape.m % 64) if shape.m % 64 else shape.m) for shape in edges)
    assert {count for (_, _, m), count in pairs.items() if m < grid.tokens} == {2}
    assert {m for _, _, m in pairs} == {64 * 2**power for power in range(20) if 64 * 2**power <= grid.tokens}


def test_the_longest_context_is_measured_first_of_all(found: tuple[Grid, Candidates]) -> None:
    grid, candidates = found
    for op in ("prefill_attention", "decode_attention"):
        contexts = [
            s.past_tokens + s.query_tokens for s, why in candidates.start.items() if s.op == op and why == LONGEST
        ]
        assert contexts
        assert set(contexts) == {grid.context}


def test_every_op_is_in_the_start_and_mixed_batches_are_one(found: tuple[Grid, Candidates]) -> None:
    _, candidates = found
    ops = Counter(shape.op for shape in candidates.start)
    assert set(ops) == {"gemm", "elementwise", "prefill_attention", "decode_attention", "mixed_attention"}
    assert all(shape.decodes and shape.query_tokens for shape in candidates.start if shape.op == "mixed_attention")
    assert set(candidates.start.values()) == {EDGE, LONGEST, SPACE_FILLING, MIXED}
    assert len(candidates.start) < 200


def test_the_pool_is_large_and_holds_nothing_twice(found: tuple[Grid, Candidates]) -> None:
    grid, candidates = found
    assert len(set(candidates.pool)) == len(candidates.pool) > 5 * len(candidates.start)
    assert not set(candidates.pool) & set(candidates.start)
    for shape in candidates.pool:
        assert shape.m <= grid.tokens
        assert shape.past_tokens + shape.query_tokens <= grid.context
        if shape.op == "decode_attention":
            assert shape.sequences * (shape.past_tokens + 1) <= grid.kv_tokens


def test_iterations_start_with_mixed_batches_among_others() -> None:
    candidates = iteration_candidates(*GRIDS["cpu"])
    assert set(candidates.start.values()) == {MIXED, SPACE_FILLING}
    assert not set(candidates.pool) & set(candidates.start)


@settings(deadline=None)
@given(start=st.integers(1, 500), more=st.integers(0, 100_000), per_octave=st.sampled_from([2, 4, 8]))
def test_steps_reach_from_the_start_to_the_end(start: int, more: int, per_octave: int) -> None:
    values = steps(start, start + more, per_octave)
    assert (values[0], values[-1]) == (start, start + more)
    assert values == sorted(set(values))
    assert all(b <= 2 ** (1 / per_octave) * (a + 0.5) + 0.51 for a, b in pairwise(values))
