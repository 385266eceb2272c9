"""The Triton attention against plain PyTorch: on a CUDA device where there is one, else under Triton's interpreter.

The interpreter has to be asked for before anything imports Triton, and transformers does; so one test runs all others
in a process of their own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
triton = pytest.importorskip("triton", reason="Triton is not installed")
RELEASE = tuple(int(part) for part in triton.__version__.split(".")[:2])
if DEVICE == "cpu" and RELEASE < (3, 7) and np.lib.NumpyVersion(np.__version__) >= "2.4.0":
    pytest.skip("the interpreter of Triton before 3.7 does not work with numpy 2.4 and newer", allow_module_level=True)

from engine.attention.triton_kernel import paged_attention  # noqa: E402
from engine.attention.triton_plan import Tiling  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
SMALL = Tiling(block_m=16, block_n=16, num_warps=4, num_stages=1)
on_device = pytest.mark.skipif(
    DEVICE == "cpu" and not INTERPRETED, reason="runs in the process that test_all_under_the_interpreter starts"
)
outside = pytest.mark.skipif(INTERPRETED, reason="runs outside the interpreter")
TOLERANCE = {torch.float32: (1e-5, 3e-6), torch.float16: (2e-3, 1e-3), torch.bfloat16: (1.6e-2, 8e-3)}


@dataclass(frozen=True, kw_only=True)
class Batch:
    """A batch of random contents. What no token may see, in the pools or the block tables, is NaN or leads to it."""

    lens: list[tuple[int, int]]
    """New tokens and context of each sequence."""
    group: int = 4
    kv_heads: int = 1
    head_dim: int = 64
    block_size: int = 16
    dtype: torch.dtype = torch.float32
    window: int | None = None
    tensors: dict[str, torch.Tensor] = field(init=False)

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(len(self.lens) + sum(context for _, context in self.lens))
        width = max(-(-context // self.block_size) for _, context in self.lens) + 2
        blocks = len(self.lens) * width + 1
        shape = (2, blocks, self.block_size, self.kv_heads, self.head_dim)
        pools = torch.randn(shape, generator=generator)
        tables = torch.randperm(blocks - 1, generator=generator).view(len(self.lens), width).int() + 1
        seen = torch.zeros(blocks, self.block_size, dtype=torch.bool)
        for table, (query_len, context) in zip(tables, self.lens, strict=True):
            first = 0 if self.window is None else max(0, context - query_len - self.window + 1)
            slots = torch.arange(first, context)
            seen[table[slots // self.block_size].long(), slots % self.block_size] = True
            table[: first // self.block_size] = 0
            table[-(-context // self.block_size) :] = 0
        pools[:, ~seen] = torch.nan
        query_lens = torch.tensor([0] + [query_len for query_len, _ in self.lens])
        heads = self.group * self.kv_heads
        query = torch.randn(int(query_lens.sum()), heads, self.head_dim, generator=generator)
        found = {
            "query": query.to(self.dtype),
            "key_pool": pools[0].to(self.dtype),
            "value_pool": pools[1].to(self.dtype),
            "block_tables": tables,
            "query_start": query_lens.cumsum(0).int(),
            "context_len": torch.tensor([context for _, context in self.lens]).int(),
        }
        object.__setattr__(self, "tensors", {name: tensor.to(DEVICE) for name, tensor in found.items()})

    def run(self, **others: object) -> torch.Tensor:
        given = self.tensors | {"scale": self.head_dim**-0.5, "window": self.window} | others
        return paged_attention(**given)  # type: ignore[arg-type]

    def expected(self) -> torch.Tensor:
        """The same in float64, one sequence and one explicit softmax at a time."""
        query, keys, values, tables, *_ = (tensor.cpu() for tensor in self.tensors.values())
        rows = []
        for table, row, (query_len, context) in zip(
            tables, query.split([query_len for query_len, _ in self.lens]), self.lens, strict=True
        ):
            slots = torch.arange(context)
            blocks = table[slots // self.block_size].long()
            key, value = (pool[blocks, slots % self.block_size].double() for pool in (keys, values))
            key, value = (kv.repeat_interleave(self.group, dim=1) for kv in (key, value))
            position = torch.arange(context - query_len, context)[:, None]
            hidden = slots > position
            if self.window is not None:
                hidden |= slots <= position - self.window
            scores = torch.einsum("qhd,khd->hqk", row.double(), key) * self.head_dim**-0.5
            weights = scores.masked_fill(hidden, -torch.inf).softmax(-1)
            rows.append(torch.einsum("hqk,khd->qhd", weights, value.masked_fill(hidden.all(0)[:, None, None], 0)))
        return torch.cat(rows)

    def check(self, **others: object) -> None:
        rtol, atol = TOLERANCE[self.dtype]
        torch.testing.assert_close(self.run(**others).cpu().double(), self.expected(), rtol=rtol, atol=atol)


lengths = st.tuples(st.integers(1, 20), st.integers(0, 70)).map(lambda drawn: (drawn[0], sum(drawn)))
decodes = st.integers(1, 90).map(lambda context: (1, context))


@on_device
@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    lens=st.lists(st.one_of(lengths, decodes), min_size=1, max_size=4),
    group=st.sampled_from([1, 4, 8]),
    kv_heads=st.sampled_from([1, 2]),
    head_dim=st.sampled_from([8, 16, 64]),
    block_size=st.sampled_from([1, 8, 16, 64]),
    window=st.sampled_from([None, None, 1, 7, 33]),
    num_splits=st.sampled_from([None, 1, 2, 4]),
)
def test_mixed_batches(
    lens: list[tuple[int, int]],
    group: int,
    kv_heads: int,
    head_dim: int,
    block_size: int,
    window: int | None,
    num_splits: int | None,
) -> None:
    batch = Batch(lens=lens, group=group, kv_heads=kv_heads, head_dim=head_dim, block_size=block_size, window=window)
    batch.check(num_splits=num_splits, tiling=SMALL)


@on_device
@pytest.mark.parametrize("head_dim", [64, 80, 96, 128])
@pytest.mark.parametrize("dtype", list(TOLERANCE))
def test_head_dims_and_dtypes(head_dim: int, dtype: torch.dtype) -> None:
    Batch(lens=[(1, 75), (9, 100), (1, 1)], head_dim=head_dim, dtype=dtype).check()


@on_device
@pytest.mark.parametrize("window", [None, 100])
@pytest.mark.parametrize("num_splits", [1, 2, 4, 8])
@pytest.mark.parametrize("group", [1, 8])
def test_splits_of_decodes(num_splits: int, window: int | None, group: int) -> None:
    batch = Batch(lens=[(1, 170), (1, 16), (1, 17), (1, 1)], window=window, group=group)
    batch.check(num_splits=num_splits, max_query_len=1, max_context_len=170, tiling=SMALL)


@on_device
def test_chunks_larger_than_a_tile_with_a_past_beside_decodes() -> None:
    Batch(lens=[(1, 90), (37, 37), (30, 130), (1, 16)], group=7, head_dim=16).check(num_splits=3, tiling=SMALL)


@on_device
def test_a_bound_of_the_context_that_is_too_low_costs_time_and_nothing_else() -> None:
    Batch(lens=[(1, 170), (3, 100)]).check(num_splits=2, max_context_len=32, tiling=SMALL)


@on_device
def test_a_first_token_attends_to_itself_alone() -> None:
    batch = Batch(lens=[(1, 1), (1, 1)], group=4)
    block = batch.tensors["block_tables"][:, 0].long()
    value = batch.tensors["value_pool"][block, 0]
    assert torch.equal(batch.run(), value.expand(2, 4, 64))


@on_device
@pytest.mark.parametrize("num_splits", [1, 4])
def test_the_same_input_gives_the_same_bits(num_splits: int) -> None:
    batch = Batch(lens=[(1, 150), (5, 40)], dtype=torch.float16)
    assert torch.equal(batch.run(num_splits=num_splits), batch.run(num_splits=num_splits))


@on_device
@pytest.mark.parametrize("num_splits", [1, 4])
def test_padding_is_left_as_it_is(num_splits: int) -> None:
    batch = Batch(lens=[(1, 70), (4, 40), (0, 0), (0, 0)])
    query = torch.nn.functional.pad(batch.tensors["query"], (0, 0, 0, 0, 0, 3), value=torch.nan)
    out = torch.full_like(query, 5.0)
    assert batch.run(query=query, out=out, num_splits=num_splits, tiling=SMALL) is out
    torch.testing.assert_close(out[:5], batch.run(num_splits=num_splits, tiling=SMALL))
    assert (out[5:] == 5.0).all()


@on_device
def test_decodes_padded_to_more_sequences() -> None:
    batch = Batch(lens=[(1, 70), (1, 20), (0, 0), (0, 0)])
    query = torch.nn.functional.pad(batch.tensors["query"], (0, 0, 0, 0, 0, 2))
    out = batch.run(query=query, max_query_len=1, num_splits=2, tiling=SMALL)
    torch.testing.assert_close(out[:2], batch.run())


@on_device
def test_views_in_other_layouts() -> None:
    batch = Batch(lens=[(6, 30), (1, 40)], kv_heads=2)
    query = batch.tensors["query"].transpose(0, 1).contiguous().transpose(0, 1)
    pools = torch.stack([batch.tensors["key_pool"], batch.tensors["value_pool"]], dim=3)
    found = batch.run(query=query, key_pool=pools[:, :, :, 0], value_pool=pools[:, :, :, 1])
    assert found.is_contiguous()
    assert torch.equal(found, batch.run())


@on_device
def test_nothing_to_do() -> None:
    batch = Batch(lens=[(0, 0)])
    assert batch.run().shape == (0, 4, 64)


@on_device
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query": torch.zeros(1, 4, 32)}, "with the query's head_dim"),
        ({"query": torch.zeros(4, 64)}, "query must be"),
        ({"query": torch.zeros(1, 4, 64, dtype=torch.float16)}, "one dtype"),
        ({"query": torch.zeros(1, 3, 64)}, "multiple of kv_heads"),
        ({"context_len": torch.zeros(1, dtype=torch.int64)}, "must be int32"),
        ({"context_len": torch.zeros(2, dtype=torch.int32)}, "longer than context_len"),
        ({"query": torch.zeros(1, 64, 4).transpose(1, 2)}, "contiguous in its last"),
        ({"window": 0}, "at least 1"),
        ({"num_splits": 0}, "at least 1"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, object], message: str) -> None:
    moved = {name: value.to(DEVICE) if isinstance(value, torch.Tensor) else value for name, value in change.items()}
    with pytest.raises(ValueError, match=message):
        Batch(lens=[(1, 10)], group=1, kv_heads=2).run(**moved)


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE == "cpu", reason="no CUDA device")
def test_a_captured_graph_follows_the_contents_of_its_inputs() -> None:
    long, short = (Batch(lens=lens, dtype=torch.bfloat16) for lens in ([(1, 900), (1, 300)], [(1, 850), (1, 17)]))
    inputs = {name: tensor.clone() for name, tensor in long.tensors.items()}
    bounds = {"max_query_len": 1, "max_context_len": 1024, "num_splits": 4}
    long.run(**inputs, **bounds)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = long.run(**inputs, **bounds)
    for batch in (long, short):
        for name, tensor in batch.tensors.items():
            if inputs[name].shape == tensor.shape:
                inputs[name].copy_(tensor)
        graph.replay()
        torch.testing.assert_close(out.cpu().double(), batch.expected(), rtol=1.6e-2, atol=8e-3)


COMPILE = """
import sys
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from engine.attention import triton_kernel, triton_write

shape = {"group": 4, "head_dim": 128, "block_size": 16, "window": 0, "widen": False, "block_n": 64, "block_d": 128}
variants = [
    (triton_kernel._attend, shape | {"single": True, "split": True, "block_m": 16}, 4),
    (triton_kernel._attend, shape | {"single": False, "split": False, "block_m": 128}, 8),
    (triton_kernel._join, {"head_dim": 128, "block_s": 8, "block_d": 128}, 1),
    (triton_write._write, {"kv_heads": 8, "head_dim": 128, "block": 1024}, 4),
]
half = dict.fromkeys(["out", "query", "key", "value", "key_pool", "value_pool"], "*bf16")
whole = dict.fromkeys(["block_tables", "query_start", "context_len"], "*i32")
types = half | whole | {"partial": "*fp32", "weight": "*fp32", "scale": "fp32", "slots": "*i64"}
for kernel, constants, warps in variants:
    signature = {name: "constexpr" if name in constants else types.get(name, "i32") for name in kernel.arg_names}
    source = ASTSource(kernel, signature, {(kernel.arg_names.index(name),): value for name, value in constants.items()})
    built = compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": warps, "num_stages": 3})
    print("wgmma" in built.asm["ptx"], len(built.asm["cubin"]) > 0)
"""


@outside
@pytest.mark.skipif(DEVICE == "cuda", reason="there is a CUDA device")
def test_all_under_the_interpreter() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:xdist", str(Path(__file__))]
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.rpartition(" passed")[0].split()[-1]) > 30, done.stdout


@outside
def test_the_kernels_compile_for_a_gpu_that_is_not_here(tmp_path: Path) -> None:
    """For Hopper, and its warp-group matrix instructions serve the chunks."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["False", "True", "True", "True", "False", "True", "False", "True"]
