"""``python -m simulator capacity`` as a person types it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from policies.catalog import choose
from simulator.capacity.capacity import find_capacity
from simulator.capacity.document import as_dict
from simulator.capacity.session import Request
from simulator.capacity.session import capacity as find
from simulator.capacity.slo import parse_slo
from simulator.capacity.verdict import verdict, verdicts
from simulator.trials.candidate import Candidate
from simulator.trials.plan import carry_out, run_here
from tests.simulator.capacity.made_up import CANDIDATE, CHAT, MadeUp
from traces.demand import Demand
from traces.errors import InputError

SLO = parse_slo("tbt:100")
BASE = ["-w", "chat", "--num-prompts", "40", "-m", "mistral-7b", "--max-num-seqs", "8"]


def capacity(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "simulator", "capacity", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)


def made_up(excess, **limits):
    return carry_out(find_capacity(CANDIDATE, CHAT, SLO), MadeUp(excess, **limits))


def test_it_prints_a_table_and_writes_what_it_found(tmp_path: Path) -> None:
    done = capacity(*BASE, "--slo", "tbt:60", "-p", "vllm,sarathi-serve", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "P99 TBT ≤ 60 ms and median delay ≤ 2000 ms" in done.stdout
    assert done.stdout.rstrip().endswith("Report: out/capacity/report.html")
    document = json.loads((tmp_path / "out/capacity/capacity.json").read_text())
    assert list(document["policies"]) == ["vllm", "sarathi-serve"]
    page = (tmp_path / "out/capacity/report.html").read_text()
    assert page.startswith("<!DOCTYPE html>")
    assert document["command"].replace("'", "&#x27;") in page
    assert 'id="figure-rates"' in page
    assert 'id="figure-queue"' in page
    for label, found in document["policies"].items():
        assert found["trials"] <= 15
        assert found["low_per_s"] <= found["rate_per_s"] <= found["high_per_s"]
        assert label in done.stdout
    demand = Demand(source="chat", num_prompts=40)
    here = Candidate(
        choice=choose("vllm", max_num_seqs=8), model="mistral-7b", device="a100-sxm", max_model_len=demand.longest
    )
    same = carry_out(find_capacity(here, demand, parse_slo("tbt:60")))
    found = document["policies"]["vllm"]
    assert {key: value for key, value in found.items() if key != "verdict"} == json.loads(json.dumps(as_dict(same)))


@pytest.mark.parametrize(
    ("asked", "complaint"),
    [
        ({"slo": None}, "--slo: no term; expected terms in milliseconds"),
        ({"slo": ["tbt"]}, "--slo: cannot read the term 'tbt'"),
        ({"slo": None, "goodput": ["ttft:500"], "goodput_share": 2.0}, "--goodput-share: a share of 2"),
        ({"goodput": ["tft:500"]}, "--goodput: cannot read the target 'tft:500'"),
        ({"most_trials": 7}, "--most-trials: 7 trials for 3 seeds; expected at least 11"),
        ({"seeds": 0}, "--seeds: 0 seeds"),
        ({"tolerance": 0.0}, "--tolerance: a tolerance of 0"),
        ({"guess": -1.0}, "request rate -1"),
        ({"arrivals": "all"}, "--arrivals: arrivals are 'all'"),
        ({"model": "llama-3.1-70b"}, "GiB"),
        ({"max_model_len": 500}, "at most --max-model-len 500"),
        ({"seed": -1}, "--seed: a seed of -1"),
        ({"policies": "vllm,orka"}, "--policies: unknown policy 'orka'"),
    ],
)
def test_what_cannot_be_is_an_error_before_anything_runs(tmp_path: Path, asked: dict[str, Any], complaint: str) -> None:
    given = {"workload": "chat", "num_prompts": 60, "model": "mistral-7b", "device": "a100-sxm", "slo": ["tbt:60"]}
    request = {"policies": "vllm", "output": tmp_path / "out", **given, **asked}
    with pytest.raises(InputError, match=re.escape(complaint)):
        find(Request(**request))
    assert not list(tmp_path.iterdir())


def test_a_policy_with_a_target_keeps_that_of_the_slo_unless_told_otherwise(tmp_path: Path) -> None:
    asked = Request(
        workload="chat", model="mistral-7b", device="a100-sxm", policies="slack,slack:tbt_s=0.2,vllm",
        slo=["tbt:60"], output=tmp_path,
    )  # fmt: skip
    settings = {label: each.choice.settings for label, each in asked.candidates(8192).items()}
    assert settings["slack"].tbt_s == 0.06
    assert settings["slack-0.2"].tbt_s == 0.2


@pytest.mark.parametrize(
    ("asked", "complaint"),
    [
        ({"slo": ["tbt:1"]}, "at any rate: sarathi-serve has at best P99 TBT"),
        ({"slo": ["tbt:9999"], "no_stability": True, "num_prompts": 5}, "--num-prompts: P99 TBT ≤ 9999 ms and"),
    ],
)
def test_no_capacity_is_an_error_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: dict[str, Any], complaint: str
) -> None:
    monkeypatch.setattr("simulator.capacity.session.watched_processes", lambda *_: nullcontext(run_here))
    given = {"workload": "chat", "num_prompts": 30, "model": "mistral-7b", "device": "a100-sxm", "max_num_seqs": 8}
    with pytest.raises(InputError, match=re.escape(complaint)):
        find(Request(**{**given, "policies": "sarathi-serve", "output": tmp_path / "out", **asked}))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_the_verdict_says_what_binds() -> None:
    bound = verdict("a", made_up(lambda rate, _: rate / 0.5, limit=1.0))
    assert bound.startswith("a sustains 0.500 requests/s (0.4")
    assert "Beyond that the P99 TBT breaks the SLO (P99 TBT 10" in bound
    assert "it would saturate at 1.00" in bound
    saturated = verdict("a", made_up(lambda rate, _: 0.5, limit=1.0))
    assert "Beyond that it is saturated: more than 1.00 requests/s are not served" in saturated
    assert "at any rate: at best P99 TBT 5.00 s" in verdict("a", made_up(lambda rate, _: 50.0, limit=1.0))
    assert "too few to find the limit" in verdict("a", made_up(lambda rate, _: 0.5))


def test_the_best_is_said_first_and_only_where_it_is_certain() -> None:
    one, two = (made_up(lambda rate, _, base=base: rate / base, limit=9.0) for base in (1.0, 2.0))
    assert verdicts({"one": one, "two": two})[0].startswith("two sustains 2.00 times the rate of one (1.9")
    near = made_up(lambda rate, seed: rate / (1.0 + 0.05 * (seed - 1)), limit=9.0)
    assert "cannot be told apart" in verdicts({"one": one, "near": near})[0]
    none = made_up(lambda rate, _: 50.0, limit=9.0)
    assert verdicts({"none": none, "one": one})[0] == "one meets the SLO; none does not."
