"""Deployments: splits, KV blocks from first principles, FLOPs, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.aggregates import Aggregates, Slice, chunk_pairs, columns_of, decode_tokens_read, prefill_pairs
from profiler.deployment import Deployment
from traces.errors import InputError

GIB = 2**30


def test_kv_blocks_of_a_real_engine(data: Path) -> None:
    """The blocks that vLLM 0.19 found on an RTX 4090 after profiling it, within 5 %."""
    meta = json.loads((data / "runs/vllm019/RTX4090/Llama-3.1-8B/vllm/meta.json").read_text())
    settings = meta["engine_kwargs"]
    deployment = Deployment(
        model="llama-3.1-8b",
        device="rtx-4090",
        max_num_batched_tokens=settings["max_num_batched_tokens"],
        max_num_seqs=settings["max_num_seqs"],
        gpu_memory_utilization=meta["kv_cache"]["gpu_memory_utilization"],
    )
    assert deployment.kv_blocks == pytest.approx(meta["kv_cache"]["num_gpu_blocks"], rel=0.05)


def test_kv_blocks_add_up() -> None:
    deployment = Deployment(model="llama-3.1-8b", device="a100-sxm")
    (memory,) = deployment.stage_memory
    block_bytes = 2 * 16 * 8 * 128 * 32 * 2
    assert memory.kv_block == block_bytes
    used = memory.weights + memory.activations + memory.reserve + deployment.kv_blocks * block_bytes
    usable = deployment.hardware.memory_bytes * 0.9
    assert usable - block_bytes < used <= usable


def test_gpt3_holds_the_published_batches() -> None:
    """SARATHI: 27 sequences a micro-batch with TP8-PP8, 11 with TP8, of up to 4K tokens each."""
    shared = {"model": "gpt3-175b", "device": "a100-sxm", "tensor_parallel_size": 8}
    split = Deployment(**shared, pipeline_parallel_size=8)
    assert split.kv_tokens // 4096 // 8 >= 27
    assert Deployment(**shared).kv_tokens // 4096 >= 11


@pytest.mark.parametrize(
    ("model", "device"), [("llama-2-70b", "a100-sxm"), ("llama-13b", "rtx-4090"), ("gpt3-175b", "h100")]
)
def test_weights_that_do_not_fit(model: str, device: str) -> None:
    with pytest.raises(InputError, match=r"does not fit .* GiB of weights .*--tensor-parallel-size \d") as caught:
        _ = Deployment(model=model, device=device).kv_blocks
    ways = int(str(caught.value).rpartition(" ")[2])
    assert Deployment(model=model, device=device, tensor_parallel_size=ways).kv_blocks > 0


def test_the_stage_with_least_room_counts() -> None:
    deployment = Deployment(model="llama-2-70b", device="a40", tensor_parallel_size=4, pipeline_parallel_size=3)
    assert sum(deployment.stage_layers) == 80
    blocks = [memory.kv_blocks(deployment) for memory in deployment.stage_memory]
    assert deployment.kv_blocks == min(blocks)
    assert len(set(blocks)) > 1


def test_more_memory_and_more_gpus_hold_more() -> None:
    base = Deployment(model="llama-3.1-8b", device="a100-sxm")
    roomier = Deployment(model="llama-3.1-8b", device="a100-sxm", gpu_memory_utilization=0.95)
    split = Deployment(model="llama-3.1-8b", device="a100-sxm", tensor_parallel_size=2)
    assert roomier.kv_blocks > base.kv_blocks
    assert split.kv_blocks > 2 * base.kv_blocks


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "deployment.json"
    path.write_text('{"model": "mistral-7b", "device": "a100-sxm", "gpu_memory_utilization": 0.85}')
    deployment = Deployment.load(path)
    assert Deployment(**deployment.to_json()) == deployment
    path.write_text('{"model": "mistral-7b", "device": "a100-sxm", "gpus": 2}')
    with pytest.raises(InputError, match="unknown key 'gpus'"):
        Deployment.load(path)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"tensor_parallel_size": 3}, "3"),
        ({"tensor_parallel_size": 0}, "tensor_parallel_size"),
        ({"pipeline_parallel_size": 33}, "33"),
        ({"gpu_memory_utilization": 1.5}, "gpu_memory_utilization"),
        ({"block_size": 0}, "block_size"),
        ({"max_model_len": 0}, "max_model_len"),
        (
            {"tensor_parallel_size": 8, "gpus_per_node": 3},
            "tensor_parallel_size is 8; expected at most 3, the GPUs of a node, or those of whole nodes",
        ),
        ({"gpus_per_node": 0}, "gpus_per_node"),
        ({"dtype": "int3"}, "dtype"),
        ({"model": "no-such-model"}, "no-such-model"),
        ({"device": "no-such-device"}, "no-such-device"),
    ],
)
def test_refused(keys: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        _ = Deployment(**({"model": "llama-3.1-8b", "device": "a100-sxm"} | keys)).kv_blocks  # type: ignore[arg-type]


def test_nodes(tmp_path: Path) -> None:
    """A file says the size of a node only where it is not the usual one; whole nodes may share a layer."""
    small = Deployment(model="falcon-180b", device="a100-pcie", tensor_parallel_size=8, gpus_per_node=4)
    usual = Deployment(model="falcon-180b", device="a100-pcie", tensor_parallel_size=8)
    assert small.spans_nodes
    assert not usual.spans_nodes
    assert "gpus_per_node" not in usual.to_json()
    path = tmp_path / "deployment.json"
    path.write_text(json.dumps(small.to_json()))
    assert Deployment.load(path) == small
    assert small.kv_blocks == usual.kv_blocks


def test_context_limit() -> None:
    assert Deployment(model="llama-3.1-8b", device="a100-sxm").context_limit == 16_384
    assert Deployment(model="llama-13b", device="a6000").context_limit == 2048
    assert Deployment(model="llama-3.1-8b", device="a100-sxm", max_model_len=100_000).context_limit == 100_000


def test_flops_of_a_whole_prompt() -> None:
    deployment = Deployment(model="llama-3.1-8b", device="a100-sxm")
    layer = 4096 * (4096 + 2 * 1024) + 4096 * 4096 + 3 * 4096 * 14336
    pairs = sum(position + 1 for position in range(100))
    expected = 2 * layer * 32 * 100 + 2 * 4096 * 128256 + 4 * 32 * 32 * 128 * pairs
    assert deployment.flops(Aggregates.of(100)) == pytest.approx(expected)


def test_flops_do_not_depend_on_how_a_prompt_is_cut() -> None:
    deployment = Deployment(model="llama-3.1-8b", device="a100-sxm")
    parts = [Aggregates(chunks=(Slice(60),)), Aggregates(chunks=(Slice(40, past=60),), outputs=1)]
    assert sum(map(deployment.flops, parts)) == pytest.approx(deployment.flops(Aggregates.of(100)))


@given(tokens=st.integers(1, 200), past=st.integers(0, 200), window=st.none() | st.integers(1, 150))
def test_pairs_within_a_window(tokens: int, past: int, window: int | None) -> None:
    seen = [past + position + 1 for position in range(tokens)]
    expected = sum(seen if window is None else [min(each, window) for each in seen])
    assert chunk_pairs(tokens, past, window) == pytest.approx(expected)
    columns = {"chunks": [0, 2], "chunk_tokens": [tokens, 1], "chunk_past": [past, 0]}
    pairs = prefill_pairs({name: np.asarray(values) for name, values in columns.items()}, window)
    assert pairs.tolist() == pytest.approx([0.0, expected + 1])


@given(contexts=st.lists(st.integers(1, 50), min_size=1, max_size=20), window=st.integers(1, 60))
def test_decodes_read_at_least_what_their_window_holds(contexts: list[int], window: int) -> None:
    batch = Aggregates(decodes=len(contexts), decode_context_sum=sum(contexts), decode_context_max=max(contexts))
    (read,) = decode_tokens_read(columns_of(batch), window)
    assert sum(min(each, window) for each in contexts) <= read <= sum(contexts)
    if max(contexts) <= window or min(contexts) >= window:
        assert read == sum(min(each, window) for each in contexts)
