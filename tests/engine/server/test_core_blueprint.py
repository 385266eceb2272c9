"""What an engine for the server is built from."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from engine.sampling import SamplingParams  # noqa: E402
from engine.server.blueprint import Blueprint  # noqa: E402
from engine.session import EngineSettings  # noqa: E402
from policies import choose  # noqa: E402
from traces.errors import InputError  # noqa: E402


def plan(folder: Path, policy: str = "vllm", profile: str | None = None) -> Blueprint:
    settings = EngineSettings(model=str(folder), max_model_len=64, num_gpu_blocks_override=16, profile=profile)
    return Blueprint(settings=settings, choice=choose(policy))


def test_a_cpu_of_which_nothing_is_known(tiny_folder: Path) -> None:
    engine = plan(tiny_folder).build()
    assert not engine.predicts
    assert engine.tokenizer is None
    engine.generate([[1, 2]], SamplingParams(max_tokens=2))
    with pytest.raises(InputError, match=r"policy slack: .*expected --profile"):
        plan(tiny_folder, "slack").build()


def test_a_profile_that_is_not_there(tiny_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    nowhere = str(tmp_path / "moved")
    with pytest.raises(InputError, match="moved"):
        plan(tiny_folder, profile=nowhere).build()
    found = plan(tiny_folder)
    predicted = replace(found, choice=replace(found.choice, predicted={"profile": nowhere}))
    with caplog.at_level(logging.WARNING):
        assert not predicted.build().predicts
    (line,) = caplog.messages
    assert line.startswith("iteration times are not predicted: ")
