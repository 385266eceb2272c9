"""What a policy on the engine is told of the time that a batch takes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("torch")

from engine.costs import costs_known, known_costs
from engine.engine import Engine
from engine.session import EngineSettings, build_engine, policy_choice
from policies import choose
from traces.errors import InputError


def test_policies_that_do_not_ask_are_told_nothing(make_engine: Callable[..., Engine]) -> None:
    runner = make_engine("vllm-v1").runner
    assert known_costs(runner, [choose("orca"), choose("vllm-v1")], "llama-60m", None) is None


def test_one_that_asks_on_a_cpu_needs_a_profile(make_engine: Callable[..., Engine]) -> None:
    runner = make_engine("vllm-v1").runner
    with pytest.raises(InputError, match=r"policy slack: .*expected --profile"):
        known_costs(runner, [choose("orca"), choose("slack")], "llama-60m", None)


def test_the_error_comes_before_a_model_is_read(tmp_path: Path) -> None:
    settings = EngineSettings(model=str(tmp_path / "nowhere"), policy="slack")
    with pytest.raises(InputError, match=r"policy slack: .*expected --profile"):
        build_engine(settings, policy_choice(settings), longest=8)


def test_a_gpu_has_coefficients_that_ship() -> None:
    assert costs_known("cuda:0", None)
    assert costs_known("cpu", "profile")
    assert not costs_known("cpu", None)
