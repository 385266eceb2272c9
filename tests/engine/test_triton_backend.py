"""The whole engine on the Triton kernels against transformers and the sdpa backend.

Under Triton's interpreter where there is no CUDA device: one test runs all others in a process of their own, since
the interpreter has to be asked for before anything imports Triton.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
triton = pytest.importorskip("triton", reason="Triton is not installed")

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
RELEASE = tuple(int(part) for part in triton.__version__.split(".")[:2])
if torch.cuda.is_available() and not INTERPRETED:
    pytest.skip("there is a CUDA device: test_cuda.py tries the engine on it", allow_module_level=True)
if RELEASE < (3, 7) and np.lib.NumpyVersion(np.__version__) >= "2.4.0":
    pytest.skip("the interpreter of Triton before 3.7 does not work with numpy 2.4 and newer", allow_module_level=True)

from engine.attention import attention_backend  # noqa: E402
from engine.attention.triton_write import write_kv  # noqa: E402
from engine.engine import Engine  # noqa: E402
from engine.graphs import GraphSizes  # noqa: E402
from engine.input import Slice  # noqa: E402
from engine.kv_cache import KVCache, KVLayout  # noqa: E402
from engine.runner import Runner  # noqa: E402
from engine.sampling import SamplingParams  # noqa: E402
from policies import KVMemory, choose  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
FAMILIES = ["llama", "mistral", "qwen2", "qwen2-window", "qwen3"]
SMALL = KVMemory(blocks=10, block_size=4, max_model_len=64)
interpreted = pytest.mark.skipif(
    not INTERPRETED, reason="runs in the process that test_all_under_the_interpreter starts"
)


@pytest.fixture(scope="module")
def requests() -> list[tuple[list[int], int]]:
    """Together more than the KV cache holds; the last prompt begins as the second does."""
    rng = random.Random(11)
    prompts = [[rng.randrange(128) for _ in range(length)] for length in (1, 20, 11)]
    prompts.append([*prompts[1][:12], 3])
    return list(zip(prompts, (8, 7, 9, 5), strict=True))


def served(engine: Engine, requests: list[tuple[list[int], int]]) -> list[Any]:
    params = [SamplingParams(temperature=0, max_tokens=outputs, ignore_eos=True) for _, outputs in requests]
    return engine.generate([prompt for prompt, _ in requests], params)


def rerun(run: Callable[[], None]) -> Callable[[], None]:
    """Stands in for the capture of a CUDA graph."""
    run()
    return run


@interpreted
@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_are_those_of_transformers(
    family: str, families: dict[str, Any], requests: list[tuple[list[int], int]]
) -> None:
    """In chunks and decodes, with preemptions, prefix hits and windows; for some also filled up to fixed shapes."""
    found = families[family]
    sizes = GraphSizes(decodes=(1, 4), budgets=(7,), max_num_seqs=4) if family in ("mistral", "qwen3") else None
    runner = Runner(found.paged, found.layout, SMALL, attention_backend("triton"), graphs=sizes, capture=rerun)
    runner.warm_up()
    engine = Engine(runner, choose("vllm-v1", max_num_batched_tokens=7, max_num_seqs=4))
    done = served(engine, requests)
    assert [request.output_token_ids for request in done] == [found.generate(*request) for request in requests]
    assert sum(request.sequence.preemptions for request in done) > 0
    again = served(engine, requests[1:2])
    assert again[0].sequence.cached_tokens > 0
    assert again[0].output_token_ids == found.generate(*requests[1])


@interpreted
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_sdpa(family: str, families: dict[str, Any]) -> None:
    """A chunk with a past, one without, and a decode in one batch, then decodes alone."""
    found, rng = families[family], np.random.default_rng(4)
    runners = [Runner(found.paged, found.layout, SMALL, attention_backend(name)) for name in ("triton", "sdpa")]
    tables, context = rng.permutation(9).reshape(3, 3).tolist(), [0, 0, 0]
    for counts in ([4, 0, 5], [6, 7, 1], [1, 1, 1]):
        shares = [share for share in zip(counts, context, tables, strict=True) if share[0]]
        slices = [Slice(rng.integers(128, size=n).tolist(), past, table, samples=True) for n, past, table in shares]
        one, other = (runner.forward(runner.batch_input(slices)) for runner in runners)
        torch.testing.assert_close(one, other, atol=1e-4, rtol=0)
        context = [past + count for past, count in zip(context, counts, strict=True)]


@interpreted
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("kv_heads", "head_dim"), [(2, 16), (3, 80), (1, 1)])
def test_written_keys_and_values_are_where_the_slots_say(dtype: Any, kv_heads: int, head_dim: int) -> None:
    layout = KVLayout(layers=1, kv_heads=kv_heads, head_dim=head_dim, dtype=dtype)
    caches = [KVCache(layout, KVMemory(blocks=6, block_size=4), torch.device("cpu")) for _ in range(2)]
    generator = torch.Generator().manual_seed(0)
    key, value = torch.randn(2, kv_heads, 5, head_dim, generator=generator).to(dtype).transpose(1, 2).unbind()
    slots = torch.tensor([3, 20, 4, 0, 27])
    write_kv(key, value, *caches[0].pools(0), slots)
    caches[1].write(0, slots, key, value)
    for found, expected in zip(caches[0].pools(0), caches[1].pools(0), strict=True):
        assert torch.equal(found, expected)
        assert found.any()


@interpreted
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"value": torch.zeros(5, 1, 16)}, "with a slot a token"),
        ({"slots": torch.zeros(4, dtype=torch.int64)}, "with a slot a token"),
        ({"slots": torch.zeros(5, dtype=torch.int32)}, "slots be int64"),
        ({"key": torch.zeros(5, 2, 16, dtype=torch.float16)}, "share one dtype"),
        ({"key": torch.zeros(5, 16, 2).transpose(1, 2)}, "contiguous in their last"),
        ({"value_pool": torch.zeros(6, 2, 4, 16).transpose(1, 2)}, "pools must be contiguous"),
    ],
)
def test_what_cannot_be_written_is_refused(change: dict[str, Any], message: str) -> None:
    pool = torch.zeros(6, 4, 2, 16)
    tensors = {"key": torch.zeros(5, 2, 16), "value": torch.zeros(5, 2, 16), "key_pool": pool, "value_pool": pool}
    with pytest.raises(ValueError, match=message):
        write_kv(**(tensors | {"slots": torch.zeros(5, dtype=torch.int64)} | change))


@pytest.mark.skipif(INTERPRETED, reason="runs outside the interpreter")
def test_all_under_the_interpreter() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:xdist", str(Path(__file__))]
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.rpartition(" passed")[0].split()[-1]) == 25, done.stdout
