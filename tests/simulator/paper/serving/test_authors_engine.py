"""What an iteration costs beside kernels: fitted to half of what was published, held against the other half."""

from __future__ import annotations

from pathlib import Path

import pytest

from profiler.aggregates import Aggregates
from profiler.cost_model import load_cost_model
from profiler.deployment import Deployment
from simulator.paper.serving.authors_engine import (
    base_iteration,
    curve_of,
    fitted_rows,
    profile_with,
    profile_with_base,
    small_base,
    target_base,
    with_base,
    with_engine,
)
from simulator.paper.serving.setup import LLAMA2_70B, YI_34B, target_iteration_s

MIXED = Aggregates.of(512, 100, decodes=7, context=900)


def test_it_is_fitted_to_half_of_the_decodes_and_judged_by_the_others() -> None:
    decodes = curve_of(decodes=True)
    assert [row.batch.decodes for row in fitted_rows()] == [1, 4, 16, 64]
    unseen = [row for row in decodes if row not in fitted_rows()]
    assert len(unseen) == len(decodes) - len(fitted_rows()) == base_iteration().errors["rows"]
    plain, based = load_cost_model(YI_34B.deployment), with_base(YI_34B.deployment)
    for row in unseen:
        off = [abs(model.iteration_time(row.batch) / row.total_s - 1) for model in (plain, based)]
        assert off[1] < 0.2 < off[0]


def test_a_base_and_an_amount_for_each_sequence() -> None:
    engine, based = base_iteration(), with_base(YI_34B.deployment)
    kernels_s = sum(based.breakdown(MIXED).values()) - based.breakdown(MIXED)["overhead"]
    assert based.iteration_time(MIXED) == pytest.approx(kernels_s + engine.iteration_s + 9 * engine.decode_s)


def test_other_models_have_as_much_a_layer() -> None:
    deployment = Deployment(model="llama-2-70b", device="a100-pcie", tensor_parallel_size=4)
    engine, share = base_iteration(), deployment.spec.layers / YI_34B.deployment.spec.layers
    expected = share * (engine.iteration_s + 9 * engine.decode_s)
    assert with_base(deployment).breakdown(MIXED)["overhead"] == pytest.approx(expected)


def test_a_profile_says_the_same(tmp_path: Path) -> None:
    path = profile_with_base(YI_34B.deployment, tmp_path)
    again = load_cost_model(YI_34B.deployment, profile=path)
    assert again.iteration_time(MIXED) == pytest.approx(with_base(YI_34B.deployment).iteration_time(MIXED), rel=1e-5)
    low, high = again.interval(MIXED)
    assert low < again.iteration_time(MIXED) < high


def test_the_smallest_base_is_what_small_batches_of_decodes_take_beside_kernels() -> None:
    engine = small_base()
    model = with_engine(YI_34B.deployment, engine)
    off = {row.batch.decodes: model.iteration_time(row.batch) / row.total_s - 1 for row in curve_of(decodes=True)}
    assert max(abs(off[count]) for count in (1, 2, 4)) < 0.03
    assert off[128] < -0.5
    assert (engine.chunk_s, engine.decode_s, engine.token_s) == (0, 0, 0)


def test_a_base_by_the_latency_target_makes_its_iteration_take_that_long(tmp_path: Path) -> None:
    placed = LLAMA2_70B.deployment
    path = profile_with(placed, target_base(placed, 0.2), tmp_path / "target.json")
    assert target_iteration_s(load_cost_model(placed, profile=path)) == pytest.approx(0.2, rel=1e-3)
    assert target_base(placed, 1e-3).iteration_s == 0
