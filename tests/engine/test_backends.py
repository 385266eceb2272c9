"""Which attention backend is taken, what each refuses, and what FlashInfer would be handed."""

from __future__ import annotations

import random
import sys
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from engine.attention import ATTENTION, attention_backend  # noqa: E402
from engine.attention.flashinfer import FlashInferBackend, Pages  # noqa: E402
from engine.engine import Engine  # noqa: E402
from engine.input import BatchInput, Slice  # noqa: E402
from engine.kv_cache import KVLayout  # noqa: E402
from engine.runner import Runner  # noqa: E402
from engine.sampling import SamplingParams  # noqa: E402
from engine.session import EngineSettings, build_engine, policy_choice  # noqa: E402
from policies import KVMemory, choose  # noqa: E402
from traces.errors import InputError  # noqa: E402

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def test_auto_is_triton_on_cuda_and_sdpa_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    assert attention_backend("auto", "cpu").name == "sdpa"
    monkeypatch.setattr("engine.attention.catalog.find_spec", lambda name: None)
    assert attention_backend("auto", "cuda:1").name == "sdpa", "where Triton is not installed"


def test_auto_takes_triton_where_it_is_installed() -> None:
    pytest.importorskip("triton")
    backend = attention_backend("auto", CUDA)
    assert (backend.name, backend.capturable) == ("triton", True)


@pytest.mark.parametrize(
    ("name", "device", "message"),
    [
        ("nonsense", "cpu", "unknown attention backend 'nonsense'; expected one of auto, sdpa, triton, flashinfer"),
        ("triton", "cpu", "triton does not run on cpu; expected sdpa, or TRITON_INTERPRET=1 for its interpreter"),
        ("flashinfer", "cpu", "flashinfer does not run on cpu; expected sdpa"),
        ("flashinfer", "cuda", "FlashInfer is not installed; expected triton, or pip install 'charioteer[flashinfer]'"),
    ],
)
def test_what_is_not_there_is_one_error(name: str, device: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setitem(sys.modules, "flashinfer", None)
    with pytest.raises(InputError) as caught:
        attention_backend(name, device)
    assert str(caught.value) == f"--attention-backend: {message}"


def layout(head_dim: int = 64, dtype: Any = torch.bfloat16) -> KVLayout:
    return KVLayout(layers=1, kv_heads=2, head_dim=head_dim, dtype=dtype)


@pytest.mark.parametrize(
    ("others", "block_size", "message"),
    [
        ({}, 12, "--block-size: is 12, which the triton attention cannot take"),
        ({"head_dim": 512}, 16, "does not know heads of 512 bfloat16 elements"),
        ({"dtype": torch.float64}, 16, "does not know heads of 64 float64 elements"),
    ],
)
def test_triton_says_before_the_first_batch_what_it_cannot_take(
    others: dict[str, Any], block_size: int, message: str
) -> None:
    pytest.importorskip("triton")
    backend = attention_backend("triton", CUDA)
    backend.check(layout(), 16)
    backend.check(layout(80, torch.float32), 1)
    with pytest.raises(InputError, match=message):
        backend.check(layout(**others), block_size)


def test_an_engine_asks_the_backend_before_it_makes_a_cache(families: dict[str, Any]) -> None:
    pytest.importorskip("triton")
    family = families["llama"]
    with pytest.raises(InputError, match="--block-size: is 3"):
        Runner(family.paged, family.layout, KVMemory(blocks=4, block_size=3), attention_backend("triton", CUDA))


def test_a_session_refuses_a_backend_before_it_reads_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    settings = EngineSettings(model="no such folder", attention_backend="triton")
    with pytest.raises(InputError, match="triton does not run on cpu"):
        build_engine(settings, policy_choice(settings), longest=8)


class Wrapper:
    """Attention by what FlashInfer's wrappers are told, in plain PyTorch."""

    def __init__(self, workspace: Any, kv_layout: str, *, use_tensor_cores: bool = False) -> None:
        assert kv_layout == "NHD"
        assert (workspace.dtype, workspace.numel() >= 2**20) == (torch.uint8, True)
        self.asked: dict[str, Any] = {}

    def run(self, q: Any, kv: tuple[Any, Any]) -> Any:
        asked, out = self.asked, torch.full_like(q, torch.nan)
        assert q.is_contiguous()
        assert q.shape[1:] == (asked["heads"], asked["head_dim"])
        assert kv[0].shape[1:] == (asked["page_size"], asked["kv_heads"], asked["head_dim"])
        for row, last in enumerate(asked["last"].tolist()):
            (start, end), (first, after) = (asked[name][row : row + 2].tolist() for name in ("queries", "pages"))
            context = (after - first - 1) * asked["page_size"] + last
            k_kgd, v_kgd = (pool[asked["indices"][first:after].long()].flatten(0, 1)[:context] for pool in kv)
            repeats = asked["heads"] // asked["kv_heads"]
            place_k, place_q1 = torch.arange(context), torch.arange(context - (end - start), context)[:, None]
            left = context if asked["window_left"] < 0 else asked["window_left"]
            seen = (place_k <= place_q1) & (place_k >= place_q1 - left)
            k_hkd, v_hkd = (kv.repeat_interleave(repeats, 1).transpose(0, 1) for kv in (k_kgd, v_kgd))
            scores = q[start:end].transpose(0, 1) @ k_hkd.transpose(1, 2) * asked["sm_scale"]
            out[start:end] = (scores.masked_fill(~seen, -torch.inf).softmax(-1) @ v_hkd).transpose(0, 1)
        return out


NAMES = ("pages", "indices", "last", "heads", "kv_heads", "head_dim", "page_size")


class Prefill(Wrapper):
    def plan(self, queries: Any, *tables: Any, causal: bool, **settings: Any) -> None:
        assert causal
        self.asked = {"queries": queries, **dict(zip(NAMES, tables, strict=True)), **settings}


class Decode(Wrapper):
    def plan(self, *tables: Any, **settings: Any) -> None:
        asked = dict(zip(NAMES, tables, strict=True))
        self.asked = {"queries": torch.arange(len(asked["last"]) + 1), **asked, **settings}


FAKE: Any = SimpleNamespace(BatchPrefillWithPagedKVCacheWrapper=Prefill, BatchDecodeWithPagedKVCacheWrapper=Decode)


def test_pages_of_a_batch() -> None:
    slices = [Slice([1, 2, 3], 2, [7, 4, 9], samples=True), Slice([5], 7, [3, 2], samples=True)]
    pages = Pages.of(BatchInput.of(slices, 4, CPU), 4, CPU)
    found = (pages.query_start_q, pages.page_start_q, pages.pages_n, pages.last_page_q)
    assert [tensor.tolist() for tensor in found] == [[0, 3, 4], [0, 2, 4], [7, 4, 3, 2], [1, 4]]
    assert {tensor.dtype for tensor in found} == {torch.int32}


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2-window"])
def test_a_flashinfer_that_does_as_it_is_told_gives_the_tokens_of_transformers(
    family: str, families: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prefill and decode wrappers, with windows on no, all and some layers, and sequences preempted."""
    found, rng = families[family], random.Random(3)
    backend = FlashInferBackend(CPU, FAKE)
    with pytest.raises(InputError, match="flashinfer does not know heads of 16 float32 elements"):
        backend.check(found.layout, 16)
    backend.check(layout(128), 16)
    monkeypatch.setattr(FlashInferBackend, "check", lambda *_: None)
    memory = KVMemory(blocks=16, block_size=4, max_model_len=64)
    engine = Engine(
        Runner(found.paged, found.layout, memory, backend), choose("sarathi-serve", max_num_batched_tokens=7)
    )
    requests = [([rng.randrange(128) for _ in range(length)], 12) for length in (3, 21, 30, 9)]
    params = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)
    done = engine.generate([prompt for prompt, _ in requests], params)
    assert [request.output_token_ids for request in done] == [found.generate(*request) for request in requests]
    assert sum(request.sequence.preemptions for request in done) > 0
    kinds = {(decodes, window) for decodes, window, _, _ in backend._wrappers}
    windows = {"llama": {None}, "mistral": {9}, "qwen2-window": {None, 9}}[family]
    assert kinds == {(decodes, window) for decodes in (True, False) for window in windows}
    each = {(type(made), made.asked["window_left"]) for made in backend._wrappers.values()}
    assert each == {(kind, -1 if window is None else 8) for kind in (Prefill, Decode) for window in windows}


@pytest.fixture
def without_compilers(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)


@pytest.mark.usefixtures("without_compilers")
def test_compiling_without_a_compiler_is_one_error(families: dict[str, Any]) -> None:
    family, memory = families["llama"], KVMemory(blocks=4, block_size=4, max_model_len=16)
    with pytest.raises(InputError, match=r"--torch-compile: there is no C\+\+ compiler; expected g\+\+ or clang"):
        Runner(family.paged, family.layout, memory, attention_backend("sdpa"), compiled=True)


def test_a_compiled_model_gives_the_same_tokens(families: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced for sizes of any value, without generating code, which would take long and is PyTorch's business."""
    family, memory = families["qwen3"], KVMemory(blocks=16, block_size=4, max_model_len=64)
    monkeypatch.setenv("CXX", sys.executable)
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    monkeypatch.setattr(family.paged.config, "_attn_implementation", ATTENTION)
    runner = Runner(family.paged, family.layout, memory, attention_backend("sdpa"), compiled=True)
    runner.warm_up()
    with monkeypatch.context() as fixed:
        fixed.setattr(torch._dynamo.config, "error_on_recompile", True)
        engine = Engine(runner, choose("sarathi-serve", max_num_batched_tokens=7))
        prompts = [list(range(20, 20 + length)) for length in (3, 17)]
        done = engine.generate(prompts, SamplingParams(temperature=0, max_tokens=6, ignore_eos=True))
    assert [request.output_token_ids for request in done] == [family.generate(prompt, 6) for prompt in prompts]
