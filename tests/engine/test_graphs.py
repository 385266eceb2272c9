"""Batches filled up to captured shapes: the same logits and tokens as without, whatever was in the buffers before.

Where there is no CUDA device a capture that runs its call again stands in for a graph, and plain PyTorch for kernels.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from engine.attention import attention_backend  # noqa: E402
from engine.attention.triton import TritonBackend  # noqa: E402
from engine.engine import Engine  # noqa: E402
from engine.graphs import Graphs, GraphSizes  # noqa: E402
from engine.input import Slice  # noqa: E402
from engine.runner import Runner  # noqa: E402
from engine.sampling import SamplingParams  # noqa: E402
from policies import KVMemory, choose  # noqa: E402
from traces.errors import InputError  # noqa: E402

FAMILIES = ["llama", "mistral", "qwen2", "qwen2-window", "qwen3"]
SIZES = GraphSizes(decodes=(1, 2, 4), budgets=(4, 8, 12), max_num_seqs=5)
SMALL = KVMemory(blocks=16, block_size=4, max_model_len=64)


def attention(
    query: Any, keys: Any, values: Any, tables: Any, query_start: Any, context_len: Any, **others: Any
) -> Any:
    """Paged attention in plain PyTorch, with the arguments of the kernel."""
    out = torch.full_like(query, torch.nan) if others["out"] is None else others["out"]
    for row, context in enumerate(context_len.tolist()):
        start, end = query_start[row : row + 2].tolist()
        assert end - start <= others["max_query_len"]
        assert context <= others["max_context_len"]
        if start == end:
            continue
        blocks = tables[row, : -(-context // keys.shape[1])].long()
        k_gkd, v_gkd = (
            pool[blocks].flatten(0, 1)[:context].transpose(0, 1).repeat_interleave(query.shape[1] // pool.shape[2], 0)
            for pool in (keys, values)
        )
        place_k, place_q1 = torch.arange(context), torch.arange(context - (end - start), context)[:, None]
        seen = (place_k <= place_q1) & (place_k > place_q1 - (others["window"] or context))
        scores = query[start:end].transpose(0, 1) @ k_gkd.transpose(1, 2) * others["scale"]
        out[start:end] = (scores.masked_fill(~seen, -torch.inf).softmax(-1) @ v_gkd).transpose(0, 1)
    return out


def write(key: Any, value: Any, keys: Any, values: Any, slots: Any) -> None:
    keys.flatten(0, 1)[slots] = key
    values.flatten(0, 1)[slots] = value


class PlainBackend(TritonBackend):
    """The Triton backend's plans and tables over plain PyTorch."""

    def __init__(self) -> None:
        self.attention, self.write = attention, write


class Rerun:
    """Stands in for the capture: what it was given is run again on the same tensors."""

    def __init__(self) -> None:
        self.captured = self.replayed = 0

    def __call__(self, run: Callable[[], None]) -> Callable[[], None]:
        run()
        self.captured += 1

        def replay() -> None:
            self.replayed += 1
            run()

        return replay


def runner_of(family: Any, *, sizes: GraphSizes | None = SIZES, memory: KVMemory = SMALL, **others: Any) -> Runner:
    runner = Runner(family.paged, family.layout, memory, PlainBackend(), graphs=sizes, **{"capture": Rerun()} | others)
    runner.warm_up()
    return runner


def test_sizes_are_dense_enough_and_end_where_the_policy_does() -> None:
    sizes = GraphSizes.of(20, 96)
    assert sizes.decodes == (1, 2, 4, 8, 16, 20)
    assert sizes.budgets == (16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96)
    assert GraphSizes.of(3, 7) == GraphSizes(decodes=(1, 2, 3), budgets=(7,), max_num_seqs=3)
    assert GraphSizes.of(256, 2048).budgets[-3:] == (896, 1024, 2048)
    assert GraphSizes.of(256, 8192).budgets[-1] == GraphSizes.of(256, None).budgets[-1] == 1024
    assert GraphSizes.of(2000, None).decodes[-2:] == (504, 512)
    assert {200, 1500} < set(GraphSizes.of(256, 200, 1500).budgets), "the budget of every policy is captured"


@given(
    st.integers(1, 300),
    st.one_of(st.none(), st.integers(1, 3000)),
    st.lists(st.one_of(st.just(1), st.integers(1, 900)), min_size=1, max_size=40),
)
def test_a_batch_fits_into_its_shape_with_little_padding(
    max_num_seqs: int, budget: int | None, tokens: list[int]
) -> None:
    sizes = GraphSizes.of(max_num_seqs, budget)
    shape = sizes.fitting([Slice([0] * count, 0, [0], samples=True) for count in tokens])
    if shape is None:
        return
    assert shape in sizes.shapes
    assert shape.tokens >= sum(tokens)
    assert shape.sequences >= len(tokens)
    assert shape.single == (max(tokens) == 1)
    assert shape.tokens - sum(tokens) <= max(15, shape.tokens // 4)
    assert sizes.most.tokens >= shape.tokens
    assert sizes.most.sequences >= shape.sequences


def test_what_is_too_large_or_would_be_mostly_padding_runs_as_it_is() -> None:
    sizes = GraphSizes(decodes=(1, 2), budgets=(16, 100), max_num_seqs=3)

    def fitting(*tokens: int) -> int | None:
        shape = sizes.fitting([Slice([0] * count, 0, [0], samples=True) for count in tokens])
        return None if shape is None else shape.tokens

    assert [fitting(1), fitting(1, 1), fitting(1, 1, 1)] == [1, 2, None]
    assert [fitting(2), fitting(16), fitting(17), fitting(74), fitting(75), fitting(101)] == [
        16,
        16,
        None,
        None,
        100,
        None,
    ]
    assert [fitting(2, 1, 1), fitting(2, 1, 1, 1)] == [16, None]


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_without_graphs(family: str, families: dict[str, Any]) -> None:
    """Batches of changing sizes, one after the other over the same buffers; padding touches nobody's KV."""
    graphs = runner_of(families[family])
    eager = runner_of(families[family], sizes=None)
    rng, capture = np.random.default_rng(5), graphs._graphs._capture
    tables = rng.permutation(16).reshape(4, 4).tolist()
    context = [0, 0, 0, 0]
    for counts in ([5, 0, 6, 0], [1, 3, 1, 0], [1, 1, 1, 0], [0, 1, 0, 0], [0, 0, 1, 7], [1, 0, 0, 1], [1, 1, 1, 1]):
        slices = []
        for sequence, count in enumerate(counts):
            if count:
                ids = rng.integers(128, size=count).tolist()
                samples = count == 1 or sequence != 2
                slices.append(Slice(ids, context[sequence], tables[sequence], samples=samples))
                context[sequence] += count
        before = capture.replayed
        padded = graphs.forward(graphs.batch_input(slices))
        assert capture.replayed == before + 1
        assert padded.shape == (sum(each.samples for each in slices), 128)
        assert padded.isfinite().all()
        torch.testing.assert_close(padded, eager.forward(eager.batch_input(slices)), atol=1e-4, rtol=0)
        for layer in range(2):
            for one, other in zip(graphs.cache.pools(layer), eager.cache.pools(layer), strict=True):
                torch.testing.assert_close(one[:-1], other[:-1], atol=1e-4, rtol=0)


@pytest.fixture(scope="module")
def requests() -> list[tuple[list[int], int]]:
    rng = random.Random(7)
    prompts = [[rng.randrange(128) for _ in range(length)] for length in (1, 5, 17, 33, 26)]
    prompts.append([*prompts[3][:18], 3, 5])
    return [(prompt, outputs) for prompt, outputs in zip(prompts, (9, 1, 20, 14, 18, 6), strict=True)]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("policy", "settings"),
    [
        ("sarathi-serve", {"max_num_batched_tokens": 7}),
        ("vllm-v1", {"max_num_batched_tokens": 9, "max_num_seqs": 5}),
        ("vllm", {}),
    ],
)
def test_tokens_are_those_of_transformers(
    policy: str, settings: dict[str, int], family: str, families: dict[str, Any], requests: list[tuple[list[int], int]]
) -> None:
    """With preemptions and prefix hits; most iterations are replays, those that are too large run as they are."""
    choice, capture = choose(policy, **settings), Rerun()
    runner = runner_of(families[family], capture=capture)
    engine = Engine(runner, choice)
    params = [SamplingParams(temperature=0, max_tokens=outputs, ignore_eos=True) for _, outputs in requests]
    done = engine.generate([prompt for prompt, _ in requests], params)
    expected = [families[family].generate(*request) for request in requests]
    assert [request.output_token_ids for request in done] == expected
    assert sum(request.sequence.preemptions for request in done) > 0
    assert capture.replayed > 20
    if policy == "vllm-v1":
        again = engine.generate([requests[3][0]], params[3])
        assert again[0].sequence.cached_tokens >= 16
        assert again[0].output_token_ids == expected[3]


def test_shapes_are_captured_once_largest_first(families: dict[str, Any]) -> None:
    capture, progress = Rerun(), list[tuple[int, int]]()
    family = families["llama"]
    runner = Runner(family.paged, family.layout, SMALL, PlainBackend(), graphs=SIZES, capture=capture)
    decode = [Slice([1], 0, [0], samples=True)]
    assert runner.batch_input(decode).shape is None, "nothing is captured yet"
    runner.warm_up(lambda done, total: progress.append((done, total)))
    assert progress == [(done, 6) for done in range(1, 7)]
    assert [shape.tokens for shape in SIZES.shapes] == [12, 8, 4, 4, 2, 1]
    assert runner.batch_input(decode).shape is not None
    runner.warm_up(lambda done, total: progress.append((done, total)))
    assert (capture.captured, len(progress)) == (6, 6)


def test_warming_up_leaves_every_block_of_the_policy_alone(families: dict[str, Any]) -> None:
    runner = runner_of(families["qwen3"])
    runner._warm_up_kernels()
    for layer in range(2):
        for pool in runner.cache.pools(layer):
            assert not pool[:-1].any()
            assert pool[-1].any()


class HostReads(TorchDispatchMode):
    """Notes operations whose result the host waits for."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(name in str(func) for name in ("_local_scalar_dense", "nonzero", "masked_select", "unique", "equal.")):
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("family", [*FAMILIES, "gpt2", "phi", "gemma3"])
def test_a_model_reads_nothing_on_the_host(family: str, families: dict[str, Any]) -> None:
    """What would do so could not be captured in a CUDA graph, and would make every iteration wait for the device."""
    reads = HostReads()

    def capture(run: Callable[[], None]) -> Callable[[], None]:
        with reads:
            run()
        return run

    found = families[family]
    backend = PlainBackend()
    backend.attention, backend.write = (lambda query, *_, **__: torch.zeros_like(query)), (lambda *_: None)
    Runner(found.paged, found.layout, SMALL, backend, graphs=SIZES, capture=capture).warm_up()
    assert reads.found == []
    with reads:
        bool(torch.ones(1).all())
    assert reads.found == ["aten._local_scalar_dense.default"]


def test_a_backend_that_reads_on_the_host_is_not_captured(families: dict[str, Any]) -> None:
    family, capture = families["llama"], Rerun()
    runner = Runner(family.paged, family.layout, SMALL, attention_backend("sdpa"), graphs=SIZES, capture=capture)
    runner.warm_up()
    assert capture.captured == 0
    assert runner.batch_input([Slice([1], 0, [0], samples=True)]).shape is None


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RuntimeError("operation not permitted\nmore"), "captured in a CUDA graph: operation not permitted"),
        (torch.OutOfMemoryError("full"), "no memory is left to capture CUDA graphs"),
    ],
)
def test_a_capture_that_fails_is_one_error(error: Exception, message: str, families: dict[str, Any]) -> None:
    def fail(run: Callable[[], None]) -> Callable[[], None]:
        raise error

    with pytest.raises(InputError, match=message) as caught:
        runner_of(families["llama"], capture=fail)
    assert "--enforce-eager" in str(caught.value)


def test_the_buffers_are_as_large_as_the_largest_shape(families: dict[str, Any]) -> None:
    """A decode size above every budget, and the other way round."""
    for sizes in (
        GraphSizes(decodes=(6,), budgets=(4,), max_num_seqs=6),
        GraphSizes(decodes=(1,), budgets=(9,), max_num_seqs=6),
    ):
        runner = runner_of(families["llama"], sizes=sizes)
        assert isinstance(runner._graphs, Graphs)
        tokens = 6 if sizes.decodes == (6,) else 1
        slices = [Slice([row], 0, [row], samples=True) for row in range(tokens)]
        logits_sv = runner.forward(runner.batch_input(slices))
        for row in range(tokens):
            torch.testing.assert_close(logits_sv[row], families["llama"].logits([row])[0], atol=1e-4, rtol=0)
