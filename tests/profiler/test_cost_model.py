"""The cost model: its parts add up, its tables say what its ops say, and the published effects come out of it."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.batch import Batch
from profiler.aggregates import Aggregates, Slice
from profiler.cost_model import GROUPS, CostModel, load_cost_model
from profiler.deployment import Deployment
from profiler.transfer import KIND


@cache
def model_of(model: str, device: str, tensor: int = 1, pipeline: int = 1) -> CostModel:
    return load_cost_model(
        Deployment(model=model, device=device, tensor_parallel_size=tensor, pipeline_parallel_size=pipeline)
    )


def llama() -> CostModel:
    return model_of("llama-3.1-8b", "a100-sxm")


@st.composite
def batches(draw: st.DrawFn) -> Aggregates:
    chunks = draw(st.lists(st.tuples(st.integers(1, 4000), st.integers(0, 16_000)), max_size=4))
    contexts = draw(st.lists(st.integers(1, 30_000), max_size=300))
    return Aggregates(
        chunks=tuple(Slice(tokens, past) for tokens, past in chunks),
        decodes=len(contexts),
        outputs=draw(st.integers(0, len(chunks))) + len(contexts),
        decode_context_sum=sum(contexts),
        decode_context_max=max(contexts, default=0),
    )


@settings(max_examples=60, deadline=None)
@given(batches())
def test_parts_add_up(batch: Aggregates) -> None:
    parts = llama().breakdown(batch)
    assert tuple(parts) == GROUPS
    assert min(parts.values()) >= 0
    assert sum(parts.values()) == pytest.approx(llama().iteration_time(batch))


@settings(max_examples=60, deadline=None)
@given(batches())
def test_bands_hold_the_time_and_nest(batch: Aggregates) -> None:
    seconds = llama().iteration_time(batch)
    low, high = llama().interval(batch, 0.9)
    inner_low, inner_high = llama().interval(batch, 0.5)
    assert low <= inner_low <= seconds <= inner_high <= high


@settings(max_examples=60, deadline=None)
@given(batches(), st.integers(1, 2000))
def test_a_longer_prompt_takes_longer(batch: Aggregates, more: int) -> None:
    longer = Aggregates(
        chunks=(*batch.chunks, Slice(512 + more)),
        decodes=batch.decodes,
        outputs=batch.outputs,
        decode_context_sum=batch.decode_context_sum,
        decode_context_max=batch.decode_context_max,
    )
    assert llama().iteration_time(longer) > llama().iteration_time(batch)


def test_a_batch_of_a_policy() -> None:
    """The real batch class, empty of sequences: only its aggregates are read."""
    batch = Batch()
    batch.decodes, batch.outputs = 32, 32
    batch.decode_context_sum, batch.decode_context_max = 32 * 1024, 1024
    same = Aggregates.of(decodes=32, context=1024)
    assert llama().iteration_time(batch) == llama().iteration_time(same)


def test_time_does_not_jump_where_the_table_ends() -> None:
    within, beyond = (llama().iteration_time(Aggregates.of(tokens)) for tokens in (8192, 8193))
    assert beyond == pytest.approx(within, rel=0.05)
    many = llama().iteration_time(Aggregates.of(decodes=1500, context=64))
    assert many > llama().iteration_time(Aggregates.of(decodes=1000, context=64))


@pytest.mark.parametrize(("decodes", "context"), [(1, 100), (7, 1000), (32, 4096), (200, 777), (1024, 50)])
def test_decodes_cost_what_their_op_says(decodes: int, context: int) -> None:
    cost_model = llama()
    op = cost_model.fitted.ops["decode_attention"]
    row = {"sequences": decodes, "past_tokens": context - 1, "heads": 32, "kv_heads": 8, "head_dim": 128}
    shape = {key: np.asarray([float(value)]) for key, value in (row | {"element_bytes": 2}).items()}
    expected = 32 * op.predict(shape, cost_model.deployment.hardware)[0]
    found = cost_model.breakdown(Aggregates.of(decodes=decodes, context=context))["decode attention"]
    assert found == pytest.approx(expected, rel=0.08)


@pytest.mark.parametrize(("tokens", "past"), [(128, 0), (512, 3000), (1024, 0), (2048, 0), (300, 12_000)])
def test_chunks_cost_what_their_op_says(tokens: int, past: int) -> None:
    cost_model = llama()
    op = cost_model.fitted.ops["prefill_attention"]
    row = {"sequences": 1, "query_tokens": tokens, "past_tokens": past, "heads": 32, "kv_heads": 8}
    shape = {key: np.asarray([float(v)]) for key, v in (row | {"head_dim": 128, "element_bytes": 2}).items()}
    expected = 32 * op.predict(shape, cost_model.deployment.hardware)[0]
    found = cost_model.breakdown(Aggregates.of(tokens, past=past))["prefill attention"]
    assert found == pytest.approx(expected, rel=0.1)


def test_one_long_context_among_short_ones() -> None:
    """What one context of 30,000 adds lies between nothing and the time it takes alone."""
    contexts = [200] * 127 + [30_000]
    mixed = Aggregates(decodes=128, outputs=128, decode_context_sum=sum(contexts), decode_context_max=30_000)
    even = Aggregates(decodes=128, outputs=128, decode_context_sum=sum(contexts), decode_context_max=433)
    assert llama().iteration_time(even) < llama().iteration_time(mixed)


def test_decode_maximal_batching() -> None:
    """SARATHI, table 2: decodes beside a prefill chunk cost a small part of decodes alone."""
    cost_model = model_of("llama-13b", "a6000")
    whole = cost_model.iteration_time(Aggregates.of(1024))
    alone = cost_model.iteration_time(Aggregates.of(decodes=4, context=1024)) / 4
    mixed = cost_model.iteration_time(Aggregates.of(1021, decodes=3, context=1024))
    assert mixed == pytest.approx(whole, rel=0.05)
    assert (mixed - whole) / 3 < alone / 5


@pytest.mark.parametrize("model", ["llama-13b", "llama-3.1-8b"])
def test_one_token_beyond_a_tile(model: str) -> None:
    cost_model = model_of(model, "a6000")
    times = {tokens: cost_model.iteration_time(Aggregates.of(tokens)) for tokens in (255, 256, 257)}
    assert times[256] == pytest.approx(times[255], rel=0.02)
    assert times[257] > 1.1 * times[256]


def test_tensor_parallelism_communicates() -> None:
    one, two = model_of("llama-3.1-8b", "a100-sxm"), model_of("llama-3.1-8b", "a100-sxm", 2)
    batch = Aggregates.of(2048)
    assert one.breakdown(batch)["communication"] == 0
    assert two.breakdown(batch)["communication"] > 0
    assert one.iteration_time(batch) / 2 < two.iteration_time(batch) < one.iteration_time(batch)


def test_tensor_parallelism_across_nodes_goes_over_the_network() -> None:
    """The slowest hop of the ring: 25 GB/s between nodes instead of 300 GB/s between eight GPUs of one."""
    shared = {"model": "llama-2-70b", "device": "a100-sxm", "tensor_parallel_size": 8}
    within, across = (load_cost_model(Deployment(**shared, gpus_per_node=gpus)) for gpus in (8, 4))
    batch = Aggregates.of(4096, 4096)
    parts, slower = within.breakdown(batch), across.breakdown(batch)
    device = across.deployment.hardware
    moved = 2 * 7 / 8 * 8192 * across.deployment.spec.hidden_bytes / device.internode_bandwidth_bytes_per_s
    assert slower.pop("communication") >= 2 * 80 * moved > parts.pop("communication")
    assert slower == parts
    low, high = across.interval(batch)
    assert low < across.iteration_time(batch) < high
    said = across.profiled_range().outside(batch)
    assert said is not None
    assert "nodes of an all-reduce 2, beyond the 1 measured" in said
    assert "nodes" not in (within.profiled_range().outside(batch) or "")


@pytest.mark.parametrize(("stages", "gpus_per_node", "far"), [(2, 8, False), (2, 4, True), (4, 8, True)])
def test_stages_of_several_nodes_send_over_the_network(stages: int, gpus_per_node: int, far: bool) -> None:
    shared = {"model": "falcon-180b", "device": "a100-pcie", "tensor_parallel_size": 4}
    model = load_cost_model(Deployment(**shared, pipeline_parallel_size=stages, gpus_per_node=gpus_per_node))
    device = model.deployment.hardware
    network_s = 4096 * model.deployment.spec.hidden_bytes / device.internode_bandwidth_bytes_per_s
    assert (model.hand_off_time(4096) > network_s) == far


def test_stages_share_the_layers() -> None:
    whole, split = model_of("llama-2-70b", "a100-sxm", 4), model_of("llama-2-70b", "a100-sxm", 4, 2)
    batch = Aggregates.of(1024, decodes=32, context=512)
    parts = [split.breakdown(batch, stage) for stage in (0, 1)]
    assert sum(part["linear"] for part in parts) == pytest.approx(whole.breakdown(batch)["linear"], rel=0.01)
    assert parts[0]["head"] == 0 < parts[1]["head"]
    assert split.hand_off_time(2048) > split.hand_off_time(1) > 0


def test_a_window_bounds_what_is_read() -> None:
    windowed, full = model_of("mistral-7b", "a100-sxm"), llama()
    assert windowed.deployment.spec.sliding_window == 4096
    short, long = (Aggregates.of(decodes=8, context=context) for context in (4096, 16_000))
    assert windowed.breakdown(long)["decode attention"] == windowed.breakdown(short)["decode attention"]
    assert full.breakdown(long)["decode attention"] > 2 * full.breakdown(short)["decode attention"]
    near, far = (windowed.breakdown(Aggregates.of(1024, past=past)) for past in (4096, 15_000))
    assert far["prefill attention"] == pytest.approx(near["prefill attention"])


EQUAL_CHUNKS = [(2, 512), (8, 64), (16, 1024), (64, 16), (100, 40), (256, 32)]


@pytest.mark.parametrize("device", ["a100-sxm", "h100"])
@pytest.mark.parametrize(("chunks", "tokens"), EQUAL_CHUNKS)
def test_equal_chunks_cost_what_their_op_says(device: str, chunks: int, tokens: int) -> None:
    cost_model = model_of("llama-3.1-8b", device)
    row = {"sequences": chunks, "query_tokens": tokens, "past_tokens": 0, "heads": 32, "kv_heads": 8}
    shape = {key: np.asarray([float(v)]) for key, v in (row | {"head_dim": 128, "element_bytes": 2}).items()}
    expected = 32 * cost_model.fitted.ops["prefill_attention"].predict(shape, cost_model.deployment.hardware)[0]
    found = cost_model.breakdown(Aggregates.of(*[tokens] * chunks))["prefill attention"]
    assert found == pytest.approx(expected, rel=0.08)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 3000), st.integers(0, 9000)), min_size=1, max_size=130))
@pytest.mark.parametrize(("model", "device"), [("llama-3.1-8b", "h100"), ("mistral-7b", "a100-sxm")])
def test_chunks_take_no_less_than_any_of_them_alone(model: str, device: str, chunks: list[tuple[int, int]]) -> None:
    cost_model = model_of(model, device)

    def attention_s(*slices: tuple[int, int]) -> float:
        batch = Aggregates(chunks=tuple(Slice(tokens, past) for tokens, past in slices))
        return cost_model.breakdown(batch)["prefill attention"]

    together = attention_s(*chunks)
    assert together >= max(map(attention_s, chunks)) > 0


def test_many_short_chunks_take_time() -> None:
    cost_model = model_of("llama-3.1-8b", "h100")
    few, many = (cost_model.breakdown(Aggregates.of(*[10] * count))["prefill attention"] for count in (1, 128))
    assert many > 2 * few > 0


def test_the_order_of_chunks_does_not_matter() -> None:
    there = Aggregates(chunks=(Slice(10), Slice(900, 300), Slice(40, 7000)))
    back = Aggregates(chunks=there.chunks[::-1])
    assert llama().iteration_time(there) == pytest.approx(llama().iteration_time(back), rel=1e-12)


def test_an_op_measured_on_the_device_itself_is_not_borrowed() -> None:
    """The shipped H100 has its elementwise ops from an RTX 4090: for that one they are its own."""
    known = model_of("llama-60m", "rtx-4090").describe()
    assert known["transferred"]
    assert known["measured"] == ["elementwise"]
    assert known["borrowed"] == dict.fromkeys(("prefill_attention", "decode_attention", "send"), "a100-sxm")
    assert KIND not in known["errors"]["elementwise"]
    assert model_of("llama-60m", "h100").describe()["borrowed"]["elementwise"] == "rtx-4090"


@pytest.mark.parametrize("device", ["a100-sxm", "a40", "l40s", "h200", "rtx-4090", "rtx-pro-6000", "cpu"])
def test_every_device_says_whose_numbers_it_has(device: str) -> None:
    cost_model = model_of("llama-60m", device)
    known = cost_model.describe()
    assert known["device"] == device
    assert known["transferred"] == (device != "a100-sxm")
    assert (known["from"] == device) != known["transferred"]
    assert json.loads(json.dumps(known)) == known
    assert cost_model.iteration_time(Aggregates.of(128, decodes=4, context=100)) > 0


def test_a_transferred_band_is_wider() -> None:
    batch = Aggregates.of(1024, decodes=32, context=1024)

    def width(device: str) -> float:
        low, high = model_of("llama-3.1-8b", device).interval(batch)
        return high / low

    assert width("a40") > width("a100-sxm")
    assert width("h200") > width("h100")


def test_loading_needs_neither_scikit_learn_nor_torch() -> None:
    code = (
        "import sys\n"
        "from profiler.cost_model import load_cost_model\n"
        "from profiler.deployment import Deployment\n"
        "load_cost_model(Deployment(model='llama-13b', device='a6000'))\n"
        "print([name for name in ('sklearn', 'scipy', 'torch', 'pyarrow') if name in sys.modules])\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@settings(max_examples=60, deadline=None)
@given(batches())
def test_a_slower_machine_takes_longer_by_as_much(batch: Aggregates) -> None:
    model = llama()
    slower = model.at_pace(1.5).at_pace(2.0)
    assert slower.iteration_time(batch) == pytest.approx(3 * model.iteration_time(batch))
    assert sum(slower.breakdown(batch).values()) == pytest.approx(slower.iteration_time(batch))
    assert slower.interval(batch) == pytest.approx([3 * bound for bound in model.interval(batch)])
    assert (slower.describe()["pace"], model.describe()["pace"]) == (3.0, 1.0)
