"""What an op was measured on goes with its fit, and says which batches lie outside."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from math import nan

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.aggregates import Aggregates, Columns, Slice, columns_of
from profiler.cost_model import CostModel
from profiler.deployment import Deployment
from profiler.fitted import FittedDevice
from profiler.measured_range import QUANTITIES, MeasuredRange
from profiler.op import OPS
from profiler.profiled_range import Limit, ProfiledRange
from profiler.transfer import load_fitted
from traces.errors import InputError

HEADS = {"heads": (8, 64), "kv_heads": (1, 8), "head_dim": (64, 128), "heads_per_kv_head": (1, 8)}
NUMBERS = {"element_bytes": (2, 2)}
RANGES: Mapping[str, Mapping[str, tuple[float, float]]] = {
    "gemm": {"tokens": (1, 4096), "weights": (2**20, 2**30), **NUMBERS},
    "prefill_attention": {"query_tokens": (16, 2048), "past_tokens": (0, 8192), **HEADS, **NUMBERS},
    "decode_attention": {
        "decodes": (1, 256),
        "decode_context": (16, 65_536),
        "decode_context_sum": (16, 1_000_000),
        **HEADS,
        **NUMBERS,
    },
    "all_reduce": {"gpus": (2, 8), "size_bytes": (256, 2048 * 8192)},
}


@cache
def placed(**changes: object) -> Deployment:
    return Deployment(**{"model": "llama-3.1-8b", "device": "a100-sxm", **changes})  # type: ignore[arg-type]


def ranged(ranges: Mapping[str, Mapping[str, tuple[float, float]]] = RANGES, device: str = "a100-sxm") -> FittedDevice:
    fitted = load_fitted(placed(device=device).hardware)
    ops = {
        name: replace(op, measured=MeasuredRange(ranges[name])) if name in ranges else op
        for name, op in fitted.ops.items()
    }
    return replace(fitted, ops=ops)


def profiled(**changes: object) -> ProfiledRange:
    return ProfiledRange.of(placed(**changes), ranged())


def test_the_quantities_are_those_of_known_ops() -> None:
    assert set(QUANTITIES) == set(OPS)


@pytest.mark.parametrize(
    ("batch", "said"),
    [
        (Aggregates.of(512, past=512, decodes=128, context=4000), None),
        (Aggregates.of(decodes=1, context=65_536), None),
        (Aggregates.of(decodes=3, context=1), None),
        (Aggregates.of(1), None),
        (
            Aggregates.of(decodes=1, context=131_072),
            "decode attention: decode context 131,072, beyond the 65,536 measured",
        ),
        (Aggregates.of(decodes=257, context=100), "decode attention: decodes 257, beyond the 256 measured"),
        (
            Aggregates.of(decodes=100, context=10_001),
            "decode attention: KV tokens of the decodes 1,000,100, beyond the 1,000,000 measured",
        ),
        (Aggregates.of(2049), "prefill attention: tokens of a chunk 2,049, beyond the 2,048 measured"),
        (Aggregates.of(64, past=8193), "prefill attention: past tokens of a chunk 8,193, beyond the 8,192 measured"),
        (Aggregates.of(2048, 2048, 1), "gemm: tokens of a batch 4,097, beyond the 4,096 measured"),
    ],
)
def test_a_batch_says_where_it_leaves_the_range(batch: Aggregates, said: str | None) -> None:
    assert profiled().outside(batch) == said


def test_on_several_gpus_the_messages_count_too() -> None:
    batch = Aggregates.of(2048, 1)
    assert profiled().outside(batch) is None
    said = profiled(tensor_parallel_size=2).outside(batch)
    assert said == "all reduce: tokens of a batch 2,049, beyond the 2,048 measured"


def test_shapes_of_the_deployment_that_were_not_measured_are_outside_in_every_batch_that_runs_them() -> None:
    wide = {**RANGES, "decode_attention": {**RANGES["decode_attention"], "kv_heads": (1, 4)}}
    found = ProfiledRange.of(placed(), ranged(wide))
    assert found.outside(Aggregates.of(64)) is None
    assert found.outside(Aggregates.of(64, decodes=1, context=9)) == (
        "decode attention: KV heads 8, beyond the 4 measured"
    )
    small = {**RANGES, "gemm": {**RANGES["gemm"], "weights": (2**30, 2**31)}}
    assert "weights of a matrix" in str(ProfiledRange.of(placed(), ranged(small)).outside(Aggregates.of(64)))


def test_below_the_least_measured_is_outside_beyond_one_tile() -> None:
    low = {**RANGES, "gemm": {**RANGES["gemm"], "tokens": (1024, 4096)}}
    found = ProfiledRange.of(placed(), ranged(low))
    assert found.outside(Aggregates.of(1023)) == "gemm: tokens of a batch 1,023, below the 1,024 measured"
    assert found.outside(Aggregates.of(1024)) is None


def test_a_sliding_window_reads_no_further() -> None:
    batch = Aggregates.of(decodes=1, context=131_072)
    assert profiled(model="mistral-7b").outside(batch) is None
    late = {**RANGES, "prefill_attention": {**RANGES["prefill_attention"], "past_tokens": (4500, 8192)}}
    chunk = Aggregates.of(512, past=6000)
    assert ProfiledRange.of(placed(), ranged(late)).outside(chunk) is None
    assert ProfiledRange.of(placed(model="mistral-7b"), ranged(late)).outside(chunk) == (
        "prefill attention: past tokens of a chunk 4,096, below the 4,500 measured"
    )


def with_mixes(fitted: FittedDevice) -> FittedDevice:
    mixes = {"query_tokens": (16, 2048), "past_tokens": (0, 4096), "decodes": (1, 128), "decode_context": (16, 16_384)}
    measured = MeasuredRange({**mixes, **HEADS, **NUMBERS})
    mixed = replace(fitted.ops["prefill_attention"], name="mixed_attention", measured=measured)
    return replace(fitted, ops={**fitted.ops, "mixed_attention": mixed})


def test_one_launch_is_held_against_the_mixes() -> None:
    fitted = with_mixes(ranged())
    together = ProfiledRange.of(placed(), fitted, one_launch=True)
    batch = Aggregates.of(64, decodes=129, context=100)
    assert together.outside(batch) == "mixed attention: decodes 129, beyond the 128 measured"
    assert together.outside(Aggregates.of(decodes=129, context=100)) is None
    assert ProfiledRange.of(placed(), fitted).outside(batch) is None


def plainly_asked(limit: Limit, batch: Aggregates, window: int | None) -> tuple[float, float] | None:
    """Return the least and the most that one batch asks for, None where it does not run the op; of shapes KV heads."""
    runs = {
        "prefill_attention": bool(batch.chunks),
        "decode_attention": batch.decodes > 0,
        "mixed_attention": bool(batch.chunks) and batch.decodes > 0,
    }
    if not runs.get(limit.op, True):
        return None
    mixed = limit.op == "mixed_attention"
    reach = 10**9 if window is None or mixed else window
    tokens, past = [chunk.tokens for chunk in batch.chunks], [min(chunk.past, reach) for chunk in batch.chunks]
    longest, read = min(batch.decode_context_max, reach), batch.decode_context_sum
    if longest < batch.decode_context_max:
        read = min(read, batch.decodes * reach)
    match limit.quantity:
        case "query_tokens":
            return (sum(tokens), sum(tokens)) if mixed else (min(tokens), max(tokens))
        case "past_tokens":
            return (max(past) if mixed else min(past)), max(past)
        case "decode_context":
            mean = read / batch.decodes
            return mean, mean if mixed else longest
        case quantity:
            total = batch.prefill_tokens + batch.decodes
            value = {"tokens": total, "decodes": batch.decodes, "decode_context_sum": read, "kv_heads": 8}[quantity]
            return value, value


def plainly_left(found: ProfiledRange, batch: Aggregates, window: int | None) -> tuple[int, float]:
    for index, limit in enumerate(found.limits):
        asked = plainly_asked(limit, batch, window)
        if asked is not None and asked[1] > limit.most:
            return index, asked[1]
        if asked is not None and asked[0] < limit.least:
            return index, asked[0]
    return -1, nan


def batch_of(chunks: Sequence[tuple[int, int]], contexts: Sequence[int], copies: int) -> Aggregates:
    return Aggregates(
        chunks=tuple(Slice(*chunk) for chunk in chunks),
        decodes=copies * len(contexts),
        decode_context_sum=copies * sum(contexts),
        decode_context_max=max(contexts, default=0),
    )


def table(batches: Sequence[Aggregates]) -> Columns:
    rows = [columns_of(batch) for batch in batches]
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


SHORT = st.integers(1, 600)
CHUNKS = st.lists(st.tuples(SHORT | st.integers(1, 3000), st.just(0) | st.integers(0, 10_000)), max_size=3)
BATCHES = st.lists(
    st.builds(batch_of, CHUNKS, st.lists(SHORT | st.integers(1, 80_000), max_size=6), st.integers(1, 50)),
    min_size=1,
    max_size=20,
)
LOW = {
    "gemm": {"tokens": (200, 4096)},
    "prefill_attention": {"query_tokens": (300, 2048), "past_tokens": (64, 8192)},
    "decode_attention": {"decodes": (20, 256), "decode_context": (256, 65_536), "decode_context_sum": (9000, 10**6)},
}
FEW_HEADS = {"decode_attention": {"kv_heads": (1, 4)}}


@given(
    batches=BATCHES,
    model=st.sampled_from([("llama-3.1-8b", None), ("mistral-7b", 4096)]),
    ways=st.sampled_from([1, 2]),
    one_launch=st.booleans(),
    changes=st.sampled_from([{}, LOW, FEW_HEADS]),
)
@settings(max_examples=200, deadline=None)
def test_columns_leave_the_range_as_their_batches_do(
    batches: list[Aggregates],
    model: tuple[str, int | None],
    ways: int,
    one_launch: bool,
    changes: Mapping[str, Mapping[str, tuple[float, float]]],
) -> None:
    ranges = {op: {**limits, **changes.get(op, {})} for op, limits in RANGES.items()}
    deployment = placed(model=model[0], tensor_parallel_size=1 if changes is FEW_HEADS else ways)
    found = ProfiledRange.of(deployment, with_mixes(ranged(ranges)), one_launch=one_launch)
    expected = [plainly_left(found, batch, model[1]) for batch in batches]
    index, value = found.leaves(table(batches))
    assert index.tolist() == [at for at, _ in expected]
    np.testing.assert_array_equal(value, [left for _, left in expected])
    said = [None if at < 0 else found.limits[at].told(left) for at, left in expected]
    assert [found.outside(batch) for batch in batches] == said


def test_where_nothing_was_measured_nothing_is_outside() -> None:
    index, value = ProfiledRange("nobody's").leaves(table([Aggregates.of(10**6), Aggregates.of(decodes=1, context=9)]))
    assert index.tolist() == [-1, -1]
    assert np.isnan(value).all()


def test_what_ships_was_measured_where_it_says_and_a_transfer_is_no_profile() -> None:
    def refusal(device: str, **changes: object) -> str | None:
        deployment = placed(device=device, **changes)
        return CostModel(deployment, load_fitted(deployment.hardware)).profiled_range().refusal()

    assert refusal("a100-sxm") is None
    assert refusal("h100", tensor_parallel_size=2) is None
    assert "gemm was not measured on h200: its times are taken over from h100" in str(refusal("h200"))
    assert "decode attention was not measured on a6000" in str(refusal("a6000"))


def test_a_fit_without_ranges_says_that_it_does_not_know() -> None:
    document = load_fitted(placed().hardware).to_json()
    for op in document["ops"].values():
        del op["measured"]
    found = ProfiledRange.of(placed(), FittedDevice.from_json(document, where="mine.json"))
    assert found.refusal() == "the fit does not say what gemm was measured on; fit it again"
    assert found.outside(Aggregates.of(10**6)) is None


@pytest.mark.parametrize("version", [None, 1, 2, 4])
def test_a_fit_of_another_version_is_refused(version: object) -> None:
    """Its coefficients and residuals belong to other physics: read as today's they would silently mean less."""
    document = {**load_fitted(placed().hardware).to_json(), "schema_version": version}
    with pytest.raises(InputError, match=r"old.json: schema_version is .*expected 3: fit its profile again"):
        FittedDevice.from_json(document, where="old.json")


def test_a_coefficient_that_the_physics_does_not_know_is_refused() -> None:
    document = load_fitted(placed().hardware).to_json()
    document["ops"]["prefill_attention"]["coefficients"]["packed_waves"] = 1.0
    with pytest.raises(InputError, match="prefill_attention has no coefficient 'packed_waves'"):
        FittedDevice.from_json(document, where="old.json")


def test_decodes_below_the_least_that_was_measured_are_outside() -> None:
    """Tokens are padded to tiles, decodes and contexts are not; with a window it is what they read."""
    fitted = load_fitted(placed().hardware)
    decode = fitted.ops["decode_attention"]
    assert decode.measured is not None
    limits = {**decode.measured.limits, "decodes": (64.0, 256.0), "decode_context": (8192.0, 65536.0)}
    ops = {**fitted.ops, "decode_attention": replace(decode, measured=MeasuredRange(limits))}
    found = ProfiledRange.of(placed(), replace(fitted, ops=ops))
    assert found.outside(Aggregates.of(decodes=1, context=10_000)) is not None
    windowed = replace(placed(), model="mistral-7b")
    said = ProfiledRange.of(windowed, replace(fitted, ops=ops)).outside(Aggregates.of(decodes=128, context=10_000))
    assert said is not None
    assert "below the 8,192" in said


def test_a_range_reads_as_it_was_written() -> None:
    measured = MeasuredRange({"tokens": (1, 4096), "size_bytes": (0.5, 2**40)})
    assert MeasuredRange.from_json(measured.to_json()) == measured
    assert MeasuredRange.from_json(None) is None


@pytest.mark.parametrize("broken", [[1], {"tokens": "many"}, {"tokens": [5]}, {"tokens": None}])
def test_a_broken_range_is_one_error(broken: object) -> None:
    document = json.loads(json.dumps(load_fitted(placed().hardware).to_json()))
    document["ops"]["gemm"]["measured"] = broken
    with pytest.raises(
        InputError, match=r"mine.json: not a fitted device: .* expected a file that `profiler fit` wrote"
    ):
        FittedDevice.from_json(document, where="mine.json")
