"""``iteration_time`` is fast by what it tabulates; what it says is what the plain version says."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.aggregates import Aggregates, Slice
from profiler.bands import Bands
from profiler.correction_grid import PER_OCTAVE, CorrectionGrid
from profiler.cost_model import CostModel
from profiler.deployment import Deployment
from profiler.engine_fit import GROUPS, EngineFit
from profiler.lazy_table import LazyTable
from profiler.transfer import load_fitted
from tests.profiler.plain_cost import PlainCostModel, PlainGrid

ENGINE = EngineFit(
    factors=dict(zip(GROUPS, (1.1, 0.8, 1.3, 0.9, 1.2), strict=True)),
    iteration_s=2e-3,
    chunk_s=1e-4,
    decode_s=2e-5,
    token_s=1e-6,
    layers=32,
    bands=Bands((), {}),
)
CASES = {
    "grouped heads": ("llama-3.1-8b", "a100-sxm", {}, None),
    "a window": ("mistral-7b", "a100-sxm", {}, None),
    "contexts that are not split": ("llama-2-7b", "a100-sxm", {}, None),
    "clocks that fall": ("llama-3.1-70b", "h100", {"tensor_parallel_size": 8}, None),
    "two stages": ("llama-13b", "a6000", {"pipeline_parallel_size": 2}, None),
    "a measured engine": ("llama-3.1-8b", "a100-sxm", {"cudagraph_capture_sizes": (1, 8, 64)}, ENGINE),
}


@cache
def models_of(case: str) -> tuple[CostModel, list[PlainCostModel]]:
    model, device, parallel, engine = CASES[case]
    deployment = Deployment(model=model, device=device, **parallel)
    cost_model = CostModel(deployment, replace(load_fitted(deployment.hardware), engine=engine))
    return cost_model, [PlainCostModel(cost_model, stage) for stage in range(deployment.pipeline_parallel_size)]


TOKENS = st.one_of(st.integers(1, 600), st.sampled_from([1024, 2048, 8192, 20_000]))
PAST = st.one_of(st.just(0), st.integers(0, 16_000), st.just(400_000))
SHORT, LONG = st.integers(1, 8000), st.sampled_from([1, 30_000, 400_000])


@st.composite
def batches(draw: st.DrawFn) -> Aggregates:
    chunks = tuple(Slice(*each) for each in draw(st.lists(st.tuples(TOKENS, PAST), max_size=6)))
    contexts = draw(st.lists(SHORT, max_size=40)) * draw(st.sampled_from([1, 1, 30])) + draw(st.lists(LONG, max_size=2))
    return Aggregates(
        chunks=chunks,
        decodes=len(contexts),
        outputs=len(contexts) + draw(st.integers(0, len(chunks))),
        decode_context_sum=sum(contexts),
        decode_context_max=max(contexts, default=0),
    )


@pytest.mark.parametrize("case", CASES)
@settings(max_examples=150, deadline=None)
@given(batch=batches())
def test_tables_say_what_the_formulas_say(case: str, batch: Aggregates) -> None:
    cost_model, plain = models_of(case)
    for stage, expected in enumerate(plain):
        assert cost_model.iteration_time(batch, stage) == pytest.approx(expected.iteration_time(batch), rel=1e-12)


@pytest.mark.parametrize("case", CASES)
@settings(max_examples=30, deadline=None)
@given(chunks=st.lists(st.integers(1, 300), min_size=1, max_size=3), copies=st.sampled_from([1, 2, 4, 100, 300]))
def test_so_they_do_for_many_alike_chunks(case: str, chunks: list[int], copies: int) -> None:
    cost_model, plain = models_of(case)
    batch = Aggregates.of(*chunks * copies)
    assert cost_model.iteration_time(batch) == pytest.approx(plain[0].iteration_time(batch), rel=1e-12)


@given(st.integers(1, 40), st.floats(1, 2.0**18))
def test_a_grid_is_bilinear_and_its_edge_holds(row: int, context: float) -> None:
    rows = [1, 2, 4, 7, 16]
    factors = np.random.default_rng(0).uniform(0.8, 1.25, (len(rows), 9))
    grid, place = CorrectionGrid(rows, factors), PER_OCTAVE * float(np.log2(context))
    expected = PlainGrid(rows, factors).at(row, context)
    base, rise = grid.line(row)[int(place)]
    assert grid.at(row, place) == pytest.approx(expected, rel=1e-12)
    assert base + rise * place == pytest.approx(expected, rel=1e-12)
    assert expected * (1 - 1e-12) <= grid.highest(row) <= factors.max()


def test_a_lazy_table_makes_an_entry_once() -> None:
    made: list[int] = []
    table = LazyTable(lambda key: made.append(key) or key * key)  # type: ignore[func-returns-value]
    assert [table[3], table[4], table[3]] == [9, 16, 9]
    assert made == [3, 4]
