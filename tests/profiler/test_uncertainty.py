"""Draws of a cost model: one factor a group, as wide as its band, and the model stays of one piece."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.aggregates import Aggregates, Slice
from profiler.bands import Bands
from profiler.cost_model import CostModel, load_cost_model
from profiler.deployment import Deployment
from profiler.engine_fit import EngineFit
from profiler.fitted import FittedDevice
from profiler.transfer import load_fitted
from profiler.uncertainty import EXACT, TYPICAL, drawn_factors
from tests.profiler.test_cost_model import batches, llama, model_of
from tests.profiler.test_mixed_time import with_mixes
from traces.errors import InputError

DRAWS = range(400)
FLAT = Bands((), {0.5: (0.05,), 0.9: (0.1,), 0.99: (0.2,)})
ZERO = Bands((), {0.5: (0.0,), 0.9: (0.0,)})


def with_bands(model: CostModel, bands: Bands, *, engine: bool = False) -> CostModel:
    ops = {name: replace(op, bands={"unseen shapes": bands}) for name, op in model.fitted.ops.items()}
    whole = EngineFit(iteration_s=1e-3, layers=32, bands=bands) if engine else None
    fitted: FittedDevice = replace(model.fitted, ops=ops, engine=whole)
    return CostModel(model.deployment, fitted, one_launch=model._mixed is not None)


MIXED = with_bands(with_mixes(llama()), FLAT)
MODELS = {
    "two launches": llama(),
    "one launch": MIXED,
    "tensor parallel": model_of("llama-3.1-70b", "h100", 4),
    "whole iterations": with_bands(llama(), FLAT, engine=True),
}
EXACT_MODELS = [with_bands(MIXED, ZERO, engine=engine) for engine in (False, True)]


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=30, deadline=None)
@given(batch=batches(), draw=st.integers(0, 5))
def test_parts_of_a_drawn_model_add_up(name: str, batch: Aggregates, draw: int) -> None:
    drawn = MODELS[name].drawn(draw)
    assert sum(drawn.breakdown(batch).values()) == pytest.approx(drawn.iteration_time(batch))
    low, high = drawn.interval(batch)
    assert low <= drawn.iteration_time(batch) <= high


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=20, deadline=None)
@given(tokens=st.integers(0, 600), decodes=st.integers(0, 100), context=st.integers(1, 5000), draw=st.integers(0, 5))
def test_repeating_takes_what_each_takes(name: str, tokens: int, decodes: int, context: int, draw: int) -> None:
    drawn, times = MODELS[name].drawn(draw), 4
    decodes = decodes or int(not tokens)
    expected = [_turn(tokens, decodes, context, turn) for turn in range(times)]
    found, ends = drawn.repeated(expected[0], 1.0, float("inf"), times)
    assert found == pytest.approx([drawn.iteration_time(batch) for batch in expected], rel=1e-12)
    assert ends == pytest.approx(1.0 + np.cumsum(found))


def _turn(tokens: int, decodes: int, context: int, turn: int) -> Aggregates:
    return Aggregates(
        chunks=(Slice(tokens, turn * tokens),) if tokens else (),
        decodes=decodes,
        outputs=decodes,
        decode_context_sum=decodes * (context + turn),
        decode_context_max=context + turn if decodes else 0,
    )


@settings(max_examples=20, deadline=None)
@given(batches())
def test_without_any_width_it_is_the_model_itself(batch: Aggregates) -> None:
    for model in EXACT_MODELS:
        assert model.drawn(7).iteration_time(batch) == model.iteration_time(batch)
        assert model.drawn(7).breakdown(batch) == model.breakdown(batch)


@pytest.mark.parametrize(
    ("model", "batch", "group"),
    [
        (llama(), Aggregates(chunks=(Slice(512, 512),)), "linear"),
        (llama(), Aggregates(chunks=(Slice(512, 60_000),)), "prefill attention"),
        (llama(), TYPICAL[1], "linear"),
        (llama(), replace(TYPICAL[1], decode_context_sum=64 * 30_000, decode_context_max=30_000), "decode attention"),
        (MIXED, replace(TYPICAL[2], decode_context_sum=64 * 16_000, decode_context_max=16_000), "decode attention"),
        (MODELS["whole iterations"], TYPICAL[0], "linear"),
    ],
)  # fmt: skip
def test_draws_spread_as_far_as_the_interval_says(model: CostModel, batch: Aggregates, group: str) -> None:
    """Batches that one group dominates; it counts as in a typical batch, hence the tolerance."""
    model = with_bands(model, FLAT, engine=model.fitted.engine is not None)
    parts = model.breakdown(batch)
    assert max(parts, key=lambda name: parts[name]) == group
    times = [model.drawn(draw).iteration_time(batch) for draw in DRAWS]
    low, high = model.interval(batch, 0.9)
    assert np.mean([low <= time_s <= high for time_s in times]) == pytest.approx(0.9, abs=0.05)
    assert np.std(np.log(times)) == pytest.approx(np.log(high / low) / 2 / 1.645, rel=0.15)


def test_overhead_and_sends_are_exact() -> None:
    model = model_of("llama-13b", "a6000", 1, 2)
    drawn = model.drawn(3)
    assert drawn.hand_off_time(100) == model.hand_off_time(100)
    assert drawn.breakdown(TYPICAL[2])["overhead"] == model.breakdown(TYPICAL[2])["overhead"]
    assert drawn.iteration_time(TYPICAL[2], 1) != model.iteration_time(TYPICAL[2], 1)


def test_equal_draws_are_equally_far_for_all_deployments_of_a_device() -> None:
    small, large = (
        load_cost_model(Deployment(model="mistral-7b", device="a100-sxm", max_num_batched_tokens=budget))
        for budget in (512, 16_384)
    )
    assert small.drawn(5)._drawn == large.drawn(5)._drawn
    assert small.drawn(5)._drawn != small.drawn(6)._drawn
    widths = dict.fromkeys(("linear", "head"), 0.1)
    assert drawn_factors(widths, "a100-sxm", 5)["linear"] != drawn_factors(widths, "h100", 5)["linear"]
    assert drawn_factors({"iteration": 0.1}, "h100", 5).keys() == EXACT.keys()
    assert len(set(drawn_factors({"iteration": 0.1}, "h100", 5).values())) == 1


def test_a_draw_replaces_another_and_the_pace_stays() -> None:
    model = llama()
    time_s = model.drawn(2).iteration_time(TYPICAL[2])
    assert model.drawn(1).drawn(2).iteration_time(TYPICAL[2]) == time_s
    assert model.drawn(2).at_pace(1.5).iteration_time(TYPICAL[2]) == pytest.approx(1.5 * time_s)
    assert model.at_pace(1.5).drawn(2).iteration_time(TYPICAL[2]) == pytest.approx(1.5 * time_s)
    assert (model.drawn(2).describe()["draw"], "draw" in model.describe()) == (2, False)
    with pytest.raises(InputError, match="draw -1"):
        model.drawn(-1)


def test_a_transferred_model_draws_too() -> None:
    hardware = Deployment(model="mistral-7b", device="l40s")
    model = CostModel(hardware, load_fitted(hardware.hardware))
    assert len({model.drawn(draw).iteration_time(TYPICAL[2]) for draw in range(5)}) == 5
