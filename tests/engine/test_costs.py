"""What a policy on the engine is told of the time that a batch takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch")

from engine.costs import costs_known, known_costs
from engine.engine import Engine
from engine.session import EngineSettings, build_engine, cost_profile, policy_choice
from policies import choose
from traces.errors import InputError
from traces.files import write_json


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


def test_a_policy_that_a_search_wrote_brings_the_profile_that_it_was_predicted_with(tmp_path: Path) -> None:
    interval = {"value": 1.0, "low": 1.0, "high": 1.0}
    predicted = {"workload": {}, "deployment": {}, "metrics": {"TTFT P50": interval}, "profile": "of-the-search"}
    path = tmp_path / "policy.json"
    write_json(path, replace(choose("slack"), predicted=predicted).as_dict())
    settings = EngineSettings(model=str(tmp_path), policy=str(path), max_num_seqs=4)
    choice = policy_choice(settings)
    assert choice.settings.max_num_seqs == 4
    assert cost_profile(settings, choice) == "of-the-search"
    assert cost_profile(replace(settings, profile="own"), choice) == "own"
    assert cost_profile(EngineSettings(model=""), choose("slack")) is None


def test_a_gpu_has_coefficients_that_ship() -> None:
    assert costs_known("cuda:0", None)
    assert costs_known("cpu", "profile")
    assert not costs_known("cpu", None)
