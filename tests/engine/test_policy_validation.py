"""``engine profile`` and ``engine validate --policy``: measured, predicted, served and judged, on a tiny model."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="the engine needs torch")

from engine.__main__ import app
from policies.catalog import PolicyChoice, choose
from profiler.deployment import Deployment
from profiler.profile import read_profile
from simulator.prediction import predict
from simulator.trials.candidate import Candidate
from simulator.trials.plan import carry_out
from traces.demand import Demand, Drawn
from traces.errors import InputError
from traces.run_record import read_run

DEMAND = Demand(source="chat", num_prompts=6, length_scale=0.01)
RATE, SEED = 20.0, 3
CHOICES = tuple(choose("sarathi-serve", max_num_batched_tokens=budget, max_num_seqs=4) for budget in (16, 32))


def called(*arguments: str | Path) -> int:
    try:
        app(args=[str(argument) for argument in arguments], prog_name="engine")
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def called_with_error(*arguments: str | Path) -> str:
    with pytest.raises(InputError) as error:
        app(args=[str(argument) for argument in arguments], prog_name="engine", standalone_mode=False)
    return str(error.value)


@pytest.fixture(scope="module")
def profile(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``engine profile`` measures of the tiny model in a second or two."""
    output = tmp_path_factory.mktemp("profiles") / "profile"
    limits = ("--max-num-seqs", "4", "--max-num-batched-tokens", "128", "--max-model-len", "96")
    assert called("profile", "--model", tiny_folder, *limits, "--budget", "1.5", "--output", output) == 0
    return output


def document(model: Path, profile: Path | None, metrics: list[dict[str, dict[str, float]]]) -> dict[str, Any]:
    """The content of a policy.json as a search would write it."""
    deployment = Deployment(
        model=str(model), device="cpu", max_model_len=96, max_num_batched_tokens=96, max_num_seqs=4, block_size=8
    )
    winner, other = CHOICES
    predicted = {
        "workload": Drawn(demand=DEMAND, request_rate=RATE, seed=SEED).as_dict(),
        "deployment": deployment.to_json(),
        "replicas": 1,
        "profile": None if profile is None else str(profile),
        "coverage": 0.9,
        "metrics": metrics[0],
        "slo": "p99-tbt:60000 p50-delay:60000",
        "objective": {"name": "capacity", "value": 3.0},
        "runners_up": [{**other.as_dict(), "metrics": metrics[1]}],
    }
    return replace(winner, predicted=predicted).as_dict()


def candidate(choice: PolicyChoice, model: Path, profile: Path) -> Candidate:
    return Candidate(
        choice=choice, model=str(model), device="cpu", max_model_len=96, profile=str(profile), block_size=8
    )


@pytest.fixture(scope="module")
def policy(tiny_folder: Path, profile: Path) -> dict[str, Any]:
    """What is predicted of two settings, by simulation on the profile."""
    found = [carry_out(predict(candidate(choice, tiny_folder, profile), DEMAND, RATE, SEED)) for choice in CHOICES]
    metrics = [{name: each.as_dict() for name, each in own.metrics.items()} for own in found]
    return document(tiny_folder, profile, metrics)


def written(folder: Path, content: dict[str, Any]) -> Path:
    path = folder / "policy.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_a_profile_holds_ops_and_designed_iterations_within_the_limits(profile: Path) -> None:
    found = read_profile(profile)
    rows = [row for row in found.table.to_pylist() if row["op"] == "iteration"]
    assert len(rows) >= 16
    assert max(row["decodes"] for row in rows) <= 4
    assert found.meta["sizes"]["fused"] is False
    assert "gemm" in found.table["op"].to_pylist()


def test_what_was_predicted_is_served_and_judged(
    policy: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "validation"
    status = called("validate", "--policy", written(tmp_path, policy), "--repeats", "2", "--output", output)
    printed = capfd.readouterr().out
    found = json.loads((output / "validation.json").read_text(encoding="utf-8"))
    assert status == (0 if found["holds"] else 1)
    assert f"Report: {output}" in printed
    assert "in sum:" in printed
    served = DEMAND.workload(RATE, SEED)
    for label, choice in zip(("sarathi-serve-16", "sarathi-serve-32"), CHOICES, strict=True):
        for turn in ("1", "2"):
            run = read_run(output / "measured" / label / turn)
            for name in ("arrival_s", "prompt_tokens", "output_tokens"):
                assert np.array_equal(getattr(run.requests, name), getattr(served, name))
            assert run.meta.policy["max_num_batched_tokens"] == choice.as_dict()["max_num_batched_tokens"]
    assert [setting["label"] for setting in found["settings"]] == ["sarathi-serve-16", "sarathi-serve-32"]
    assert any(each["subject"] == "SLO" and each["holds"] is True for each in found["verdict"])
    for setting in found["settings"]:
        assert setting["slo"]["held"]
        assert setting["deviation"] == 0.0
        assert setting["drift"] is not None
        metrics = setting["metrics"]
        assert len(metrics["TTFT P50"]["replays"]) == 2
        assert metrics["TTFT P50"]["at_pace"]["low"] <= metrics["TTFT P50"]["at_pace"]["high"]
    assert read_run(output / "measured" / "sarathi-serve-16" / "1").meta.block_size == 8
    assert json.loads((output / "policy.json").read_text(encoding="utf-8")) == policy
    assert "sarathi-serve-32" in (output / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(("low", "high", "status"), [(0.0, 1e9, 0), (1e8, 1e9, 1)])
def test_the_status_says_whether_it_holds(
    tiny_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], low: float, high: float, status: int
) -> None:
    metrics = {"End-to-end P50": {"value": max(low, 1.0), "low": low, "high": high}}
    content = document(tiny_folder, None, [metrics, metrics])
    content["predicted"]["runners_up"] = []
    words = ("validate", "--policy", written(tmp_path, content), "--output", tmp_path / "out", "--json")
    assert called(*words) == status
    found = json.loads(capfd.readouterr().out)
    assert found["holds"] is (status == 0)
    assert found["settings"][0]["drift"] is None


def change(content: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {**content, "predicted": {**content["predicted"], **changes}}


@pytest.mark.parametrize(
    ("spoil", "words", "complaint"),
    [
        (lambda c: {"policy": "orca"}, (), "holds no prediction"),
        (lambda c: change(c, metrics=[1]), (), "key 'metrics'"),
        (lambda c: change(c, replicas=2), (), "is about 2 replicas of 1 GPUs"),
        (lambda c: change(c, workload={"source": "nowhere.csv", "request_rate": 1}), (), "nowhere.csv: no such file"),
        (lambda c: change(c, workload={"source": "chat", "request_rate": 1, "speed": 2}), (), "unknown key 'speed'"),
        (lambda c: change(c, deployment={"model": "llama-60m", "device": "a100-sxm"}), (), "expected --device cuda"),
        (lambda c: change(c, deployment={"model": "llama-60m"}), (), "'device' is missing"),
        (lambda c: change(c, goodput="fast"), (), "cannot read the target 'fast'"),
        (lambda c: change(c, slo="P99 TBT at most a minute"), (), "policy.json, predicted, slo: cannot read the term"),
        (lambda c: change(c, profile="nowhere"), (), "nowhere: no such folder"),
        (lambda c: c, ("--model", "llama-60m"), "expected llama-60m, as --model says"),
        (lambda c: c, ("--loads", "below:0.5"), "--loads: does not go with --policy"),
        (lambda c: c, ("--seed", "1"), "--seed: does not go with --policy"),
        (lambda c: c, ("--repeats", "0"), "--repeats: is 0"),
    ],
)
def test_what_is_not_about_this_engine_is_refused_and_nothing_written(
    policy: dict[str, Any],
    tmp_path: Path,
    spoil: Callable[[dict[str, Any]], Any],
    words: tuple[str, ...],
    complaint: str,
) -> None:
    path = written(tmp_path, spoil(policy))
    assert complaint in called_with_error("validate", "--policy", path, "--output", tmp_path / "out", *words)
    assert [entry.name for entry in tmp_path.iterdir()] == ["policy.json"]


@pytest.mark.parametrize("words", [("--repeats", "2", "--model", "llama-60m"), ("chat",)])
def test_options_that_do_not_go_together_are_refused(words: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match=r"expected .*--policy policy\.json"):
        app(args=["validate", *words], prog_name="engine", standalone_mode=False)


def test_a_wrong_wish_is_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "engine", "validate", "--policy", str(written(tmp_path, {"policy": "orca"}))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_policy_with_its_prediction_runs_as_any_other(
    policy: dict[str, Any], tiny_folder: Path, tmp_path: Path
) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n2024-05-10 00:00:00,9,3\n", encoding="utf-8")
    path, output = written(tmp_path, policy), tmp_path / "run"
    assert called("replay", trace, "--model", tiny_folder, "--policy", path, "--output", output) == 0
    own = {"name": "sarathi-serve", **{key: policy[key] for key in ("max_num_seqs", "max_num_batched_tokens")}}
    assert own.items() <= read_run(output).meta.policy.items()
    broken = written(tmp_path, change(policy, coverage="most"))
    assert called_with_error("replay", trace, "--model", tiny_folder, "--policy", broken).startswith(str(broken))
