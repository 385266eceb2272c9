"""What policy.json says was predicted: read in full, or refused with the place and what was expected."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from policies.catalog import read_policy
from policies.prediction import Interval, read_prediction
from traces.errors import InputError

METRIC = {"value": 0.2, "low": 0.1, "high": 0.3}
DOCUMENT: dict[str, Any] = {
    "policy": "sarathi-serve",
    "max_num_batched_tokens": 256,
    "predicted": {
        "workload": {"source": "chat", "request_rate": 2.0, "seed": 0},
        "deployment": {"model": "llama-60m", "device": "cpu", "max_num_seqs": 16},
        "metrics": {"TTFT P50": METRIC},
        "objective": {"name": "capacity", "value": 2.5},
        "capacity": {"value": 2.5, "low": 2.0, "high": 3.0},
        "runners_up": [
            {"policy": "sarathi-serve", "max_num_batched_tokens": 512, "metrics": {"TTFT P50": METRIC}, "value": 2.0},
            {"policy": "orca", "metrics": {"TTFT P50": METRIC}, "replicas": 2},
        ],
    },
}
Change = Callable[[dict[str, Any]], object]


def written(folder: Path, change: Change = lambda _: None) -> Path:
    document = copy.deepcopy(DOCUMENT)
    change(document["predicted"])
    path = folder / "policy.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def test_the_winner_comes_first_and_what_runs_elsewhere_is_told_apart(tmp_path: Path) -> None:
    path = written(tmp_path)
    found = read_prediction(read_policy(path), where=path)
    assert list(found.labelled) == ["sarathi-serve-256", "sarathi-serve-512"]
    assert found.elsewhere == ("orca",)
    assert found.settings[0].metrics == {"TTFT P50": Interval(value=0.2, low=0.1, high=0.3)}
    assert (found.replicas, found.coverage, found.objective["name"]) == (1, 0.9, "capacity")


def test_a_runner_up_whose_largest_batch_differs_runs_on_the_same(tmp_path: Path) -> None:
    def change(predicted: dict[str, Any]) -> None:
        predicted["runners_up"][1] = {
            "policy": "orca",
            "metrics": {"TTFT P50": METRIC},
            "deployment": {**predicted["deployment"], "max_num_seqs": 8, "max_num_batched_tokens": 64},
        }

    path = written(tmp_path, change)
    assert list(read_prediction(read_policy(path), where=path).labelled)[-1] == "orca"


def test_a_policy_without_a_prediction_has_none(tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    path.write_text('{"policy": "orca"}', encoding="utf-8")
    with pytest.raises(InputError, match=f"{path}: holds no prediction; expected what"):
        read_prediction(read_policy(path), where=path)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda p: p.pop("workload"), "key 'workload' is missing"),
        (lambda p: p.update(deployment=3), "key 'deployment' is 3"),
        (lambda p: p.update(metrics={}), "key 'metrics' is missing or empty"),
        (lambda p: p["metrics"].update({"TTFT P50": 0.2}), "'TTFT P50': is 0.2"),
        (lambda p: p["metrics"]["TTFT P50"].pop("low"), "key 'low' is missing"),
        (lambda p: p["metrics"]["TTFT P50"].update(low="x"), "key 'low' is 'x'"),
        (lambda p: p["metrics"]["TTFT P50"].update(low=0.25), r"not within its interval \[0.25, 0.3\]"),
        (lambda p: p["metrics"]["TTFT P50"].update(high=float("inf")), "not finite"),
        (lambda p: p.update(coverage=1.5), "coverage is 1.5"),
        (lambda p: p.update(goodput_share=0.0), "goodput_share is 0"),
        (lambda p: p.update(replicas=0), "replicas is 0"),
        (lambda p: p.update(profile=7), "key 'profile' is 7"),
        (lambda p: p.update(runners_up=[3]), "key 'runners_up'"),
        (lambda p: p["runners_up"][0].pop("policy"), r"runners_up\[0\]: key 'policy'"),
        (lambda p: p["runners_up"][0].pop("metrics"), r"runners_up\[0\]: key 'metrics'"),
        (lambda p: p["runners_up"][0].update(chunks=3), "unknown key 'chunks'"),
        (lambda p: p["runners_up"][0].update(deployment="cpu"), "deployment or replicas of another type"),
        (lambda p: p["runners_up"][0].update(max_num_batched_tokens=256), "the same settings are there twice"),
    ],
)
def test_a_prediction_that_is_not_sound_is_refused_with_the_file(
    tmp_path: Path, change: Change, complaint: str
) -> None:
    path = written(tmp_path, change)
    with pytest.raises(InputError, match=complaint) as error:
        read_policy(path)
    assert str(error.value).startswith(f"{path}, predicted")
