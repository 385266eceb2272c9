"""The engine on a CUDA device: the Triton kernels, CUDA graphs, the memory, and the profiler's clocks."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from engine.attention import attention_backend  # noqa: E402
from engine.engine import Engine  # noqa: E402
from engine.graphs import CudaCapture, GraphSizes  # noqa: E402
from engine.input import Slice  # noqa: E402
from engine.iterations import engine_iterations  # noqa: E402
from engine.kernels import TorchKernels  # noqa: E402
from engine.kv_layout import kv_layout  # noqa: E402
from engine.runner import Runner  # noqa: E402
from engine.sampling import SamplingParams  # noqa: E402
from engine.session import EngineSettings, build_engine, policy_choice  # noqa: E402
from policies import KVMemory, choose  # noqa: E402
from profiler.grid import Grid, design  # noqa: E402
from profiler.iteration import design_iterations  # noqa: E402
from profiler.model import load_model  # noqa: E402
from traces.errors import InputError  # noqa: E402

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

FAMILIES = ["llama", "mistral", "qwen2", "qwen2-window", "qwen3"]
POLICIES: dict[str, dict[str, int]] = {
    "sarathi-serve": {"max_num_batched_tokens": 7},
    "vllm-v1": {"max_num_batched_tokens": 9, "max_num_seqs": 5},
    "vllm": {},
}
SMALL = KVMemory(blocks=16, block_size=4, max_model_len=64)
SIZES = GraphSizes(decodes=(1, 2, 4), budgets=(4, 8, 12), max_num_seqs=5)
ROOMY = KVMemory(blocks=64, block_size=16, max_model_len=256)


class Counting:
    """CUDA graphs, counted."""

    def __init__(self) -> None:
        self.capture = CudaCapture(torch.device("cuda"))
        self.captured = self.replayed = 0

    def __call__(self, run: Callable[[], None]) -> Callable[[], None]:
        replay = self.capture(run)
        self.captured += 1

        def counted() -> None:
            self.replayed += 1
            replay()

        return counted


@pytest.fixture(scope="module")
def on_gpu(families: dict[str, Any]) -> dict[str, Any]:
    """The tiny models with our attention, in float32."""
    return {name: copy.deepcopy(families[name].paged).cuda() for name in FAMILIES}


@pytest.fixture(scope="module")
def requests() -> list[tuple[list[int], int]]:
    rng = random.Random(7)
    prompts = [[rng.randrange(128) for _ in range(length)] for length in (1, 5, 17, 33, 26)]
    prompts.append([*prompts[3][:18], 3, 5])
    return [(prompt, outputs) for prompt, outputs in zip(prompts, (9, 1, 20, 14, 18, 6), strict=True)]


@pytest.fixture(scope="module")
def expected(families: dict[str, Any], requests: list[tuple[list[int], int]]) -> dict[str, list[list[int]]]:
    return {name: [families[name].generate(*request) for request in requests] for name in FAMILIES}


def runner_of(model: Any, backend: str, *, memory: KVMemory = SMALL, **others: Any) -> Runner:
    runner = Runner(model, kv_layout(model), memory, attention_backend(backend, "cuda"), **others)
    runner.warm_up()
    return runner


@pytest.mark.parametrize("way", ["graphs", "eager", "sdpa"])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("policy", POLICIES)
def test_tokens_are_those_of_transformers(
    policy: str,
    family: str,
    way: str,
    on_gpu: dict[str, Any],
    requests: list[tuple[list[int], int]],
    expected: dict[str, list[list[int]]],
) -> None:
    """With preemptions, prefix hits, and batches that are too large for a graph."""
    capture = Counting()
    sizes = SIZES if way == "graphs" else None
    runner = runner_of(on_gpu[family], "sdpa" if way == "sdpa" else "triton", graphs=sizes, capture=capture)
    engine = Engine(runner, choose(policy, **POLICIES[policy]))
    params = [SamplingParams(temperature=0, max_tokens=outputs, ignore_eos=True) for _, outputs in requests]
    done = engine.generate([prompt for prompt, _ in requests], params)
    assert [request.output_token_ids for request in done] == expected[family]
    assert sum(request.sequence.preemptions for request in done) > 0
    assert engine.policy.pool.used == 0
    assert capture.captured == (len(SIZES.shapes) if way == "graphs" else 0)
    assert (capture.replayed > 20) == (way == "graphs")


def batches() -> list[list[Slice]]:
    """Chunks, chunks beside decodes, decodes: three sequences of up to 150 tokens in scattered blocks."""
    rng, context, found = np.random.default_rng(2), [0, 0, 0], []
    tables = rng.permutation(60).reshape(3, 20).tolist()
    for counts in ([70, 0, 9], [40, 100, 1], [1, 5, 1], [1, 1, 1], [0, 1, 0]):
        shares = [share for share in zip(counts, context, tables, strict=True) if share[0]]
        found.append(
            [Slice(rng.integers(128, size=n).tolist(), past, table, samples=True) for n, past, table in shares]
        )
        context = [past + count for past, count in zip(context, counts, strict=True)]
    return found


@pytest.mark.parametrize("graphs", [None, GraphSizes(decodes=(4,), budgets=(8, 96, 160), max_num_seqs=4)])
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_sdpa_in_float32(family: str, graphs: GraphSizes | None, on_gpu: dict[str, Any]) -> None:
    triton = runner_of(on_gpu[family], "triton", memory=ROOMY, graphs=graphs)
    sdpa = runner_of(on_gpu[family], "sdpa", memory=ROOMY)
    for slices in batches():
        found, wanted = (runner.forward(runner.batch_input(slices)) for runner in (triton, sdpa))
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_in_bfloat16_are_no_worse_than_those_of_sdpa(family: str, on_gpu: dict[str, Any]) -> None:
    """Against float32, both in bfloat16: rounding differs, its size does not."""
    half = copy.deepcopy(on_gpu[family]).bfloat16()
    graphs = GraphSizes(decodes=(4,), budgets=(8, 96, 160), max_num_seqs=4)
    exact = runner_of(on_gpu[family], "sdpa", memory=ROOMY)
    triton, sdpa = runner_of(half, "triton", memory=ROOMY, graphs=graphs), runner_of(half, "sdpa", memory=ROOMY)
    for slices in batches():
        wanted, found, other = (runner.forward(runner.batch_input(slices)) for runner in (exact, triton, sdpa))
        own, usual = ((logits - wanted).square().mean().sqrt() for logits in (found, other))
        assert own <= 2 * usual + 0.01 * wanted.std()


def test_sampling_with_a_seed_is_the_same_each_time(on_gpu: dict[str, Any]) -> None:
    engine = Engine(runner_of(on_gpu["llama"], "triton", graphs=SIZES), choose("vllm-v1"))
    params = [SamplingParams(temperature=0.8, top_p=top_p, seed=3, max_tokens=12) for top_p in (1.0, 0.9)]
    one, other = (engine.generate([[5, 6, 7]] * 2, params) for _ in range(2))
    assert [request.output_token_ids for request in one] == [request.output_token_ids for request in other]


@pytest.mark.parametrize("options", [{}, {"enforce_eager": True}, {"torch_compile": True}])
def test_a_session_takes_triton_and_fills_the_memory_it_may(options: dict[str, bool]) -> None:
    settings = EngineSettings(
        model="llama-60m",
        load_format="dummy",
        device="cuda",
        dtype="bfloat16",
        max_num_seqs=12,
        max_num_batched_tokens=64,
        gpu_memory_utilization=0.5,
        **options,
    )
    progress: list[tuple[int, int]] = []
    engine = build_engine(
        settings, policy_choice(settings), longest=200, on_progress=lambda *each: progress.append(each)
    )
    assert engine.runner.backend.name == "triton"
    assert engine.runner.memory.blocks == 12 * 256 // 16, "all that twelve sequences can fill"
    total = 0 if options.get("enforce_eager") else len(GraphSizes.of(12, 64).shapes)
    assert progress == [(done, total) for done in range(1, total + 1)]
    done = engine.generate([[1, 2, 3] * 30, [4] * 7], SamplingParams(temperature=0, max_tokens=20, ignore_eos=True))
    assert [len(request.output_token_ids) for request in done] == [20, 20]
    assert engine.policy.pool.used == 0


def test_a_cache_that_does_not_fit_is_one_error() -> None:
    settings = EngineSettings(
        model="llama-60m", load_format="dummy", device="cuda", num_gpu_blocks_override=10**9, enforce_eager=True
    )
    with pytest.raises(InputError, match="no room for 1000000000 KV blocks"):
        build_engine(settings, policy_choice(settings), longest=200)


def test_a_device_that_is_not_there_is_one_error() -> None:
    settings = EngineSettings(model="llama-60m", load_format="dummy", device="cuda:99")
    with pytest.raises(InputError, match="none of them cuda:99"):
        build_engine(settings, policy_choice(settings), longest=200)


def test_every_op_is_timed_by_events() -> None:
    kernels = TorchKernels(accelerator="cuda", dtype="bfloat16", threads=1)
    machine = kernels.machine()
    assert not machine.is_cpu
    assert machine.device_name == torch.cuda.get_device_name()
    assert machine.cache_bytes > 2**20
    shapes = design(load_model("llama-60m"), Grid(tokens=17, sequences=2, context=32, edge=16, kv_tokens=64))
    for shape in shapes:
        times_s = kernels.seconds(kernels.prepare(shape), 3)
        assert len(times_s) == 3
        assert all(0 < time_s < 1 for time_s in times_s), shape


def test_whole_iterations_are_timed() -> None:
    grid = Grid(tokens=64, sequences=6, context=128, edge=16, kv_tokens=0)
    shapes = design_iterations(load_model("llama-60m"), grid, kv_tokens=1024, count=8)
    timed = engine_iterations("llama-60m", shapes, device="cuda", dtype="bfloat16")
    for shape in shapes:
        assert all(0 < time_s < 5 for time_s in timed.seconds(timed.prepare(shape), 2)), shape
