"""From settings to an engine: which batches are captured, and what is looked at before weights are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from engine.graphs import GraphSizes  # noqa: E402
from engine.input import Slice  # noqa: E402
from engine.session import EngineSettings, _graph_sizes, build_engine, policy_choice  # noqa: E402
from policies import choose  # noqa: E402
from traces.errors import InputError  # noqa: E402


@pytest.mark.parametrize(
    ("policy", "settings", "budget"),
    [
        ("sarathi-serve", {}, 512),
        ("sarathi-serve", {"max_num_batched_tokens": 192}, 192),
        ("sarathi", {"chunk_size": 256}, 256),
        ("vllm-v1", {}, 2048),
        ("vllm", {}, None),
        ("orca", {}, None),
    ],
)
def test_what_is_captured_follows_the_policy(policy: str, settings: dict[str, int], budget: int | None) -> None:
    choice = choose(policy, max_num_seqs=24, **settings)
    assert _graph_sizes([choice]) == GraphSizes.of(24, budget)


def test_a_cpu_has_no_graphs_and_takes_sdpa(tiny_folder: Path) -> None:
    settings = EngineSettings(model=str(tiny_folder))
    engine = build_engine(settings, policy_choice(settings), longest=40)
    assert engine.runner.backend.name == "sdpa"
    engine.runner.warm_up()
    assert engine.runner.batch_input([Slice([1], 0, [0], samples=True)]).shape is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"device": "tpu"}, "--device: unknown device 'tpu'"),
        ({"device": "cuda:7"}, "--device: PyTorch finds 0 CUDA devices, none of them cuda:7"),
        ({"attention_backend": "flash"}, "--attention-backend: unknown attention backend 'flash'"),
    ],
)
def test_what_is_not_there_is_said_before_weights_are_read(
    values: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    settings = EngineSettings(model="no such folder", **values)
    with pytest.raises(InputError) as caught:
        build_engine(settings, policy_choice(settings), longest=8)
    assert str(caught.value).startswith(message)
