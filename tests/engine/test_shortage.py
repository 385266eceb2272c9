"""Memory that runs out is one clear error, whatever the allocator raises."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="the engine needs torch")

import torch

import engine.loading as loading
from engine.__main__ import main
from engine.shortage import is_shortage, memory_for
from traces.errors import InputError

CPU = "[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes"


@pytest.mark.parametrize(
    ("error", "short"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError(CPU), True),
        (RuntimeError("shapes differ"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_shortages_are_known(error: Exception, short: bool) -> None:
    assert is_shortage(error) is short
    with pytest.raises(InputError if short else type(error)), memory_for("the test", expected="more"):
        raise error


def test_a_model_that_does_not_fit_is_an_input_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError(CPU)

    monkeypatch.setattr(loading, "_random", refuse)
    with pytest.raises(InputError, match="no memory is left for the model's weights"):
        loading.load_model("llama-60m", load_format="dummy")


def test_a_shortage_anywhere_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(**_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.\nmore lines")

    monkeypatch.setattr("engine.__main__.run", lambda *_: refuse())
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines() == [
        "error: out of memory: CUDA out of memory.; expected a smaller model, batch or KV cache"
    ]
