"""Attention of chunks and decodes in one launch, from measured mixes; and batches padded to captured graphs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from profiler.aggregates import Aggregates, Slice
from profiler.bands import Bands
from profiler.cost_model import CostModel, load_cost_model
from profiler.deployment import Deployment
from profiler.fit import fit_rows, rows_of
from profiler.layer import kernels
from profiler.mixed_time import FEWEST_ROWS, MixedAttention
from profiler.op import MIXED_ATTENTION
from profiler.overhead import GRAPH_GAP_S, LAUNCH_GAP_S
from profiler.profile import ops_table
from traces.errors import InputError

DEPLOYMENT = Deployment(model="llama-3.1-8b", device="a100-sxm")
FACTOR = 1.5


def with_mixes(model: CostModel, *, heads: int = 32, rows: int | None = None) -> CostModel:
    """The same where mixes were profiled to take :data:`FACTOR` times their parts apart, on a grid of doublings."""
    chunk, past, decodes, context = (
        axis.ravel()
        for axis in np.meshgrid(2 ** np.arange(4, 11), [0, 16, 256, 512], 2 ** np.arange(7), 2 ** np.arange(4, 14, 2))
    )
    time_s = [
        FACTOR * (model._prefill.time([Slice(int(c), int(p))]) + model._decode.time(int(n), float(n * k), float(k)))
        for c, p, n, k in zip(chunk, past, decodes, context, strict=True)
    ]
    table = ops_table(
        len(chunk),
        op="mixed_attention",
        kind="vllm",
        dtype="bfloat16",
        sequences=1,
        query_tokens=chunk,
        past_tokens=past,
        heads=heads,
        kv_heads=8,
        head_dim=128,
        decodes=decodes,
        decode_context=context,
        time_s=np.asarray(time_s),
    )
    device = DEPLOYMENT.hardware
    op = fit_rows(MIXED_ATTENTION, *rows_of(table.slice(0, rows), MIXED_ATTENTION), device)
    fitted = replace(model.fitted, ops={**model.fitted.ops, MIXED_ATTENTION.name: op})
    return CostModel(DEPLOYMENT, fitted, one_launch=True)


def test_a_mix_takes_what_mixes_were_measured_to_take_over_their_parts() -> None:
    apart = load_cost_model(DEPLOYMENT)
    together = with_mixes(apart)
    batch = Aggregates.of(512, past=300, decodes=20, context=900)
    one, two = together.breakdown(batch), apart.breakdown(batch)
    for name in ("prefill attention", "decode attention"):
        assert one[name] == pytest.approx(FACTOR * two[name], rel=0.05)
    assert sum(one.values()) == pytest.approx(together.iteration_time(batch))
    for alone in (Aggregates.of(512), Aggregates.of(decodes=20, context=900)):
        assert together.iteration_time(alone) == apart.iteration_time(alone)


def test_mixes_of_other_heads_or_too_few_are_not_used() -> None:
    apart = load_cost_model(DEPLOYMENT)
    batch = Aggregates.of(512, decodes=20, context=900)
    for other in (with_mixes(apart, heads=16), with_mixes(apart, rows=FEWEST_ROWS - 1)):
        assert not MixedAttention.known(other.fitted.ops[MIXED_ATTENTION.name], DEPLOYMENT)
        assert other.iteration_time(batch) == apart.iteration_time(batch)
    assert not MixedAttention.known(None, DEPLOYMENT)
    together = with_mixes(apart)
    assert MixedAttention.known(together.fitted.ops[MIXED_ATTENTION.name], DEPLOYMENT)
    assert CostModel(DEPLOYMENT, together.fitted).iteration_time(batch) == apart.iteration_time(batch)


def test_the_band_of_a_mix_is_that_of_mixes() -> None:
    together = with_mixes(load_cost_model(DEPLOYMENT))
    op = together.fitted.ops[MIXED_ATTENTION.name]
    wide = replace(op, bands={"unseen rows": Bands.of(np.ones(100), np.full(100, 1.5))})
    fitted = replace(together.fitted, ops={**together.fitted.ops, MIXED_ATTENTION.name: wide})
    batch = Aggregates.of(512, decodes=20, context=900)
    low, high = CostModel(DEPLOYMENT, fitted, one_launch=True).interval(batch)
    apart_low, apart_high = CostModel(DEPLOYMENT, fitted).interval(batch)
    assert high / low > apart_high / apart_low


def test_a_mix_takes_no_less_than_its_longest_context_alone() -> None:
    together = with_mixes(load_cost_model(DEPLOYMENT))
    even, uneven = (Aggregates.of(16, decodes=8, context=100) for _ in range(2))
    uneven = replace(uneven, decode_context_max=200_000)
    assert together.iteration_time(uneven) > 2 * together.iteration_time(even)


def test_a_batch_is_padded_to_the_next_captured_graph_and_beyond_them_not_at_all() -> None:
    padded = load_cost_model(replace(DEPLOYMENT, cudagraph_capture_sizes=(1, 8, 64)))

    def linear_s(tokens: int) -> float:
        return padded.breakdown(Aggregates.of(decodes=tokens, context=100))["linear"]

    assert linear_s(9) == linear_s(40) == linear_s(64)
    assert linear_s(2) == linear_s(8) < linear_s(64) < linear_s(200)
    assert linear_s(200) == load_cost_model(DEPLOYMENT).breakdown(Aggregates.of(decodes=200, context=100))["linear"]


def test_beyond_the_captured_graphs_every_kernel_is_launched() -> None:
    captured = load_cost_model(replace(DEPLOYMENT, cudagraph_capture_sizes=(1, 8, 64)))

    def overhead_s(tokens: int) -> float:
        return captured.breakdown(Aggregates.of(tokens))["overhead"]

    count = kernels(DEPLOYMENT)
    assert overhead_s(64) == pytest.approx(GRAPH_GAP_S * count)
    assert overhead_s(65) == pytest.approx(LAUNCH_GAP_S * count)
    for tokens in (64, 65):
        batch = Aggregates.of(tokens)
        assert sum(captured.breakdown(batch).values()) == pytest.approx(captured.iteration_time(batch))


def test_captured_sizes_must_ascend() -> None:
    with pytest.raises(InputError, match="ascending"):
        replace(DEPLOYMENT, cudagraph_capture_sizes=(8, 4))
    assert "cudagraph_capture_sizes" not in DEPLOYMENT.to_json()
