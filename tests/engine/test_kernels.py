"""The engine's kernels, one at a time: right results, and operands that no cache holds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from engine import hardware  # noqa: E402
from engine.arena import PATTERN_ELEMENTS, Arena  # noqa: E402
from engine.kernels import EMBEDDING_ROWS, TorchKernels, attention  # noqa: E402
from profiler.candidates import op_candidates  # noqa: E402
from profiler.grid import Grid, design  # noqa: E402
from profiler.kernels import OpShape  # noqa: E402
from profiler.model import load_model  # noqa: E402
from traces.errors import InputError  # noqa: E402

CPU = torch.device("cpu")


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> TorchKernels:
    monkeypatch.setattr(hardware, "cpu_cache_bytes", lambda: 2**20)
    return TorchKernels(accelerator="cpu", dtype="float32", threads=1)


@pytest.mark.parametrize(("queries", "keys"), [(1, 7), (4, 4), (3, 9)])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_attention_is_causal_from_the_end_and_shares_kv_heads(queries: int, keys: int, kv_heads: int) -> None:
    generator = torch.Generator().manual_seed(queries + keys)
    q, k, v = (
        torch.randn(2, heads, tokens, 8, generator=generator)
        for heads, tokens in ((4, queries), (kv_heads, keys), (kv_heads, keys))
    )
    whole_k, whole_v = (x.repeat_interleave(4 // kv_heads, dim=1) for x in (k, v))
    scores = q @ whole_k.transpose(-1, -2) / 8**0.5
    seen = torch.arange(keys) <= torch.arange(keys - queries, keys)[:, None]
    expected = scores.masked_fill(~seen, float("-inf")).softmax(-1) @ whole_v
    torch.testing.assert_close(attention(q, k, v), expected)


def test_views_of_the_arena_do_not_come_again_before_the_cache_was_walked_through() -> None:
    arena = Arena(2**22, torch.float32, CPU)
    seen: list[tuple[int, int]] = []
    for _ in range(40):
        view = arena.view(100, 1000)
        assert view.is_contiguous()
        start = view.data_ptr()
        since = [end for begin, end in seen[-9:] if begin == start]
        assert not since, "a place came again within the last 9 views, 3.6 MB"
        seen.append((start, start + view.nbytes))
    assert len({start for start, _ in seen}) < 40


def test_an_arena_grows_for_a_view_that_is_larger_than_itself() -> None:
    arena = Arena(2**20, torch.bfloat16, CPU)
    view = arena.view(3, 2**20)
    assert view.shape == (3, 2**20)
    assert torch.isfinite(view).all()
    assert arena.elements >= view.numel() + 2**19


def test_every_op_of_every_family_runs(kernels: TorchKernels) -> None:
    grid = Grid(tokens=17, sequences=2, context=32, edge=16, kv_tokens=64)
    wide = load_model("llama-60m")
    for model in (wide, replace(wide, gated=False, kv_heads=2, qk_norm=True)):
        shapes = [*design(model, grid), *op_candidates(model, grid).start]
        for shape in shapes:
            times = kernels.seconds(kernels.prepare(shape), 2)
            assert len(times) == 2
            assert all(time > 0 for time in times), shape


def test_the_arena_stays_as_large_as_its_walk_and_its_largest_view(kernels: TorchKernels) -> None:
    for _ in range(3):
        for shape, _ in OUTPUTS.values():
            kernels.prepare(shape)()
    assert kernels.arena.elements * 4 < 2 * 2**20 + 8 * EMBEDDING_ROWS * 4 + 2 * PATTERN_ELEMENTS * 4


OUTPUTS = {
    "gemm": (OpShape(op="gemm", kind="q_proj", m=3, n=8, k=16), (3, 8)),
    "norm": (OpShape(op="elementwise", kind="qk_layernorm", m=3, n=8), (3, 8)),
    "act": (OpShape(op="elementwise", kind="act", m=3, n=8), (3, 8)),
    "rope": (OpShape(op="elementwise", kind="rope", m=3, n=8), (3, 8)),
    "sampler": (OpShape(op="elementwise", kind="sampler", m=3, n=100), (3,)),
    "embedding": (OpShape(op="elementwise", kind="embedding", m=3, n=8), (3, 8)),
    "kv_cache_save": (OpShape(op="elementwise", kind="kv_cache_save", m=3, n=8), (6, 8)),
}


@pytest.mark.parametrize("case", OUTPUTS)
def test_an_op_has_the_shape_that_the_profile_says(kernels: TorchKernels, case: str) -> None:
    shape, expected = OUTPUTS[case]
    output = kernels.prepare(shape)()
    assert isinstance(output, torch.Tensor)
    assert output.shape == expected


def test_a_cuda_device_that_is_not_there_is_an_input_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="--device: PyTorch finds no CUDA device"):
        TorchKernels(accelerator="cuda", dtype="bfloat16", threads=1)


def test_the_machine_says_what_it_is(kernels: TorchKernels) -> None:
    machine = kernels.machine()
    assert machine.is_cpu
    assert machine.threads == 1
    assert machine.memory_bytes > 2**28
    assert machine.device_name
    assert machine.versions["torch"] == torch.__version__


def test_cache_sizes_are_read_where_the_system_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for index, size in enumerate(("48K", "2048K", "32M")):
        folder = tmp_path / f"index{index}"
        folder.mkdir()
        (folder / "size").write_text(f"{size}\n")
    monkeypatch.setattr(hardware, "CPU_CACHES", tmp_path)
    assert hardware.cpu_cache_bytes() == 32 * 2**20
    monkeypatch.setattr(hardware, "CPU_CACHES", tmp_path / "nowhere")
    assert hardware.cpu_cache_bytes() == hardware.DEFAULT_CACHE_BYTES


def test_a_gpu_without_its_tool_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware.shutil, "which", lambda _: None)
    assert hardware.gpu_state("GPU-0") == {}


def test_what_the_tool_says_of_a_gpu_is_taken_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho '580.65, 1980 MHz, 3201 MHz, 0x0, 700.00 W'\n")
    program.chmod(0o755)
    monkeypatch.setattr(hardware.shutil, "which", lambda _: str(program))
    state = hardware.gpu_state("GPU-0")
    assert state["driver_version"] == "580.65"
    assert state["clocks.sm"] == "1980 MHz"
    program.write_text("#!/bin/sh\nexit 6\n")
    assert hardware.gpu_state("GPU-0") == {}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_times_its_kernels_within_its_datasheet() -> None:
    kernels = TorchKernels(accelerator="cuda", dtype="bfloat16", threads=1)
    shape = OpShape(op="gemm", kind="square", m=4096, n=4096, k=4096)
    times = kernels.seconds(kernels.prepare(shape), 20)
    assert shape.flops / min(times) < 3e15
    grid = Grid(tokens=129, sequences=2, context=256, edge=64, kv_tokens=512)
    for each in design(load_model("llama-3.1-8b"), grid):
        assert all(time > 0 for time in kernels.seconds(kernels.prepare(each), 3)), each
