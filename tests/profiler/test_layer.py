"""The elementwise ops of a stage are those of its layers, fused: nothing is done twice, nothing forgotten."""

from __future__ import annotations

import pytest

from profiler.deployment import Deployment
from profiler.elementwise import KINDS, kind_of, with_absent
from profiler.layer import layer_sweeps
from profiler.model import model_names


def moved_bytes(deployment: Deployment, stage: int) -> dict[str, float]:
    """Bytes a token, by kind, of all sweeps."""
    moved: dict[str, float] = {}
    for sweep in layer_sweeps(deployment, stage):
        moved[sweep.kind] = moved.get(sweep.kind, 0.0) + sweep.count * sweep.bytes_per_row
    return moved


@pytest.mark.parametrize("model", model_names())
@pytest.mark.parametrize("tensor", [1, 4])
def test_a_stage_moves_what_its_layers_move(model: str, tensor: int) -> None:
    deployment = Deployment(model=model, device="h100", tensor_parallel_size=tensor, pipeline_parallel_size=4)
    spec, layers, found = deployment.spec, deployment.stage_layers[1], moved_bytes(deployment, 1)
    ops = spec.elementwise(tensor)
    expected: dict[str, float] = {}
    for op in ops:
        expected[kind_of(op.kind)] = expected.get(kind_of(op.kind), 0.0) + layers * op.size_bytes
    fused = layers * min(2, spec.norms)
    expected["fused_norm"] = fused * 4 * spec.hidden_bytes  # the sum is written once and never read again
    expected["norm"] -= fused * 2 * spec.hidden_bytes
    expected["add"] -= fused * 3 * spec.hidden_bytes
    expected = {kind: size_bytes for kind, size_bytes in expected.items() if size_bytes}
    assert found == pytest.approx(expected)


def test_queries_and_keys_are_normalised_and_rotated_where_the_model_does_so() -> None:
    plain, qwen3 = (moved_bytes(Deployment(model=name, device="h100"), 0) for name in ("llama-2-7b", "qwen3-32b"))
    spec = Deployment(model="qwen3-32b", device="h100").spec
    rotated = 2 * (spec.heads + spec.kv_heads) * spec.head_dim * spec.dtype_bytes
    assert qwen3["norm"] == spec.layers * rotated
    assert qwen3["fused_norm"] == (2 * spec.layers + 1) * 4 * spec.hidden_bytes
    assert "rope" in plain
    gpt = Deployment(model="gpt3-175b", device="h100", tensor_parallel_size=8, pipeline_parallel_size=8)
    assert "rope" not in moved_bytes(gpt, 0)


def test_the_ends_of_a_pipeline_embed_and_normalise() -> None:
    deployment = Deployment(model="llama-2-7b", device="h100", pipeline_parallel_size=4)
    first, middle, last = (moved_bytes(deployment, stage) for stage in (0, 1, 3))
    assert first.keys() - middle.keys() == {"embedding"}
    assert last["fused_norm"] / deployment.stage_layers[3] > middle["fused_norm"] / deployment.stage_layers[1]


def test_kinds_that_nobody_measured_take_after_their_like() -> None:
    apart = with_absent({"launch": 2.0, "norm": 3.0, "add": 1.0, "act": 2.0, "rope": 0.0})
    assert (apart["fused_norm"], apart["rope"], apart["other"]) == (2.0, 2.0, 2.0)
    together = with_absent({"launch": 2.0, "fused_norm": 4.0, "act": 2.0})
    assert (together["norm"], together["fused_norm"], together["add"]) == (4.0, 4.0, 3.0)
    assert with_absent({"launch": 1.0}) == {"launch": 1.0, **dict.fromkeys(KINDS, 1.0)}
