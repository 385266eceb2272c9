"""Policies judged by pairs of simulations, in the library and on the command line."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policies.catalog import choose
from simulator.session import Request, compare, prepare
from simulator.significance.metrics import compare_paired
from simulator.significance.rows import rows, sentences
from simulator.significance.session import demand_of, trials_of
from simulator.significance.significance import Significance, find_significance
from simulator.significance.table import print_significance
from simulator.trials.candidate import Candidate
from simulator.trials.outcome import Outcome
from simulator.trials.plan import carry_out, run_here
from simulator.trials.trial import Trial
from traces.demand import Demand
from traces.errors import InputError
from traces.source import open_workload

CHAT = Demand(source="chat", num_prompts=60)
SARATHI = Trial(
    candidate=Candidate(choice=choose("sarathi-serve"), model="mistral-7b", device="a100-sxm", max_model_len=8192),
    demand=CHAT,
    rate_per_s=2.5,
)


def under(name: str, **settings: int) -> Trial:
    return replace(SARATHI, candidate=replace(SARATHI.candidate, choice=choose(name, **settings)))


def judged(trials: dict[str, Trial], baseline: str, seeds: range = range(1, 7)) -> Significance:
    return carry_out(find_significance(trials, baseline, seeds))


@pytest.fixture(scope="module")
def against_vllm() -> Significance:
    return judged({"sarathi": SARATHI, "vllm": under("vllm")}, "vllm")


def test_what_is_known_to_be_better_is_found(against_vllm: Significance) -> None:
    verdicts = against_vllm.verdicts["sarathi"]
    assert verdicts["TBT P99"].text("sarathi", "vllm") == "sarathi is better"
    assert verdicts["TTFT P50"].text("sarathi", "vllm") == "vllm is better"
    assert verdicts["Preemptions"].equal
    assert 0 < verdicts["TBT P50"].cost_share < 1


def test_the_other_baseline_turns_every_verdict(against_vllm: Significance) -> None:
    a, b = against_vllm.runs["vllm"], against_vllm.runs["sarathi"]
    other = compare_paired(a.drawn, b.drawn, fitted=(a.fitted, b.fitted))
    for name, verdict in against_vllm.verdicts["sarathi"].items():
        assert other[name].text("vllm", "sarathi") == verdict.text("sarathi", "vllm")
        assert other[name].difference == pytest.approx(-verdict.difference)


def test_a_setting_that_nothing_depends_on_makes_no_difference() -> None:
    found = judged({"128": SARATHI, "129": under("sarathi-serve", max_num_seqs=129)}, "128", range(1, 4))
    assert all(verdict.equal and verdict.difference == 0 for verdict in found.verdicts["129"].values())
    assert sentences(found) == ["129 against 128: of 15 metrics 15 equal.", "No run differs from another."]


def test_one_policy_against_itself_with_other_requests_is_not_better() -> None:
    """Real outcomes instead of made-up ones, ten comparisons of fifteen metrics each."""
    trial = replace(SARATHI, demand=replace(CHAT, num_prompts=15))
    outcomes = run_here([replace(trial, seed=seed, cost_draw=seed) for seed in range(100)])
    kept = [each for each in outcomes if isinstance(each, Outcome)]
    groups = [kept[first : first + 5] for first in range(0, 100, 5)]
    wrong = [
        any(verdict.winner for verdict in compare_paired(one, other).values())
        for one, other in zip(groups[::2], groups[1::2], strict=True)
    ]
    assert len(wrong) == 10
    assert sum(wrong) <= 1


def test_the_same_again_is_the_same_to_the_last_digit(against_vllm: Significance) -> None:
    again = judged({"sarathi": SARATHI, "vllm": under("vllm")}, "vllm", range(1, 3)).as_dict()["runs"]
    for label, runs in against_vllm.as_dict()["runs"].items():
        assert json.dumps(again[label]["drawn"]) == json.dumps(runs["drawn"][:2])
        assert json.dumps(again[label]["fitted"]) == json.dumps(runs["fitted"][:2])


def test_rows_and_tables_say_what_verdicts_say(against_vllm: Significance, capsys: pytest.CaptureFixture[str]) -> None:
    found = {row.name: row for row in rows(against_vllm, "sarathi")}
    assert found["TBT P99"].verdict == "sarathi is better"
    assert found["TBT P99"].winner == "A"
    assert found["TBT P99"].difference.startswith("-")
    assert found["Preemptions"].interval == "+0 … +0"
    assert sentences(against_vllm)[0].startswith("sarathi against vllm: of 15 metrics sarathi is better in ")
    print_significance(against_vllm)
    printed = capsys.readouterr().out
    assert "95 % interval" in printed
    assert sentences(against_vllm)[0] in " ".join(printed.split())
    assert max(map(len, printed.splitlines())) <= 100


def test_what_cannot_run_is_said_with_its_seed() -> None:
    short = replace(SARATHI, candidate=replace(SARATHI.candidate, max_model_len=100))
    with pytest.raises(InputError, match="short with seed 1: "):
        judged({"short": short, "vllm": under("vllm")}, "vllm")


def asked(output: Path, **changes: Any) -> Request:
    common: dict[str, Any] = {"workload": "chat", "num_prompts": 40, "request_rate": 2.5, "model": "mistral-7b"}
    common |= {"policies": "vllm,sarathi-serve", "device": "a100-sxm", "significance": True, "seeds": 3}
    return Request(**{**common, "output": output, **changes})


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"policies": "vllm"}, "--significance: vllm alone"),
        ({"seeds": 1}, "--seeds: 1 pairs of runs"),
        ({"seeds": 0}, "--seeds"),
        ({"baseline": "orca"}, "--baseline: no policy is orca"),
        ({"least_difference": -1.0}, "--least-difference"),
        ({"least_difference": float("nan")}, "--least-difference"),
        ({"significance": False}, "--seeds without --significance"),
        ({"significance": False, "seeds": None, "baseline": "vllm"}, "--baseline without --significance"),
    ],
)
def test_wrong_options_are_refused(tmp_path: Path, wrong: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        compare(asked(tmp_path / "out", **wrong))
    assert not (tmp_path / "out").exists()


def test_compare_writes_the_verdicts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("simulator.significance.session.watched_processes", lambda *_: nullcontext(run_here))
    output = tmp_path / "out"
    compare(asked(output, seeds=2, baseline="vllm", replicas=2), as_json=True)
    printed, document = json.loads(capsys.readouterr().out), json.loads((output / "significance.json").read_text())
    assert set(printed) == {"vllm", "sarathi-serve", "significance"}
    assert printed["significance"] == document
    assert document["seeds"] == [1, 2]
    assert document["verdicts"]["sarathi-serve"]["TBT P99"]["pairs"] == 2
    assert {len(each["drawn"]) for each in document["runs"].values()} == {2}
    page = (output / "report.html").read_text()
    assert "How sure is that?" in page
    assert 'id="figure-significance"' in page
    assert "--significance --seeds 2 --baseline vllm" in page
    compare(asked(output, significance=False, seeds=None))
    assert "told apart" not in capsys.readouterr().out
    assert "How sure is that?" not in (output / "report.html").read_text()
    assert not (output / "significance.json").exists()


def write_trace(path: Path, *, timed: bool) -> str:
    rng = np.random.default_rng(0)
    times = 1e3 * np.cumsum(rng.exponential(0.4, 30))
    rows_ = [
        {**({"timestamp": round(time_ms)} if timed else {}), "input_length": int(prompt), "output_length": 9}
        for time_ms, prompt in zip(times, rng.integers(10, 900, 30), strict=True)
    ]
    if timed:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows_))
    else:
        lines = [f"{row['input_length']},{row['output_length']}" for row in rows_]
        path.write_text("num_prefill_tokens,num_decode_tokens\n" + "\n".join(lines) + "\n")
    return str(path)


@pytest.mark.parametrize(
    ("name", "request_rate", "arrivals", "expected"),
    [("timed", None, "trace", None), ("timed", 3.0, "trace", 3.0), ("lengths", 3.0, "poisson", 3.0),
     ("lengths", None, "poisson", np.inf), ("chat", None, "poisson", np.inf)],
)  # fmt: skip
def test_requests_come_as_in_the_comparison(
    tmp_path: Path, name: str, request_rate: float | None, arrivals: str, expected: float | None
) -> None:
    path = name if name == "chat" else write_trace(tmp_path / f"{name}.csv", timed=name == "timed")
    request = asked(tmp_path / "out", workload=path, request_rate=request_rate, num_prompts=20)
    demand, rate_per_s = demand_of(request)
    itself = open_workload(path, num_prompts=20, request_rate=request_rate)
    assert demand.arrivals == arrivals
    assert rate_per_s == pytest.approx(itself.rate_per_s if expected is None else expected)
    drawn = demand.workload(rate_per_s, request.seed)
    assert drawn.arrival_s == pytest.approx(itself.arrival_s)
    assert np.array_equal(drawn.prompt_tokens, itself.prompt_tokens)
    trials = trials_of(request, prepare(request)[1], None)
    assert judged(trials, "vllm", range(1, 3)).verdicts["sarathi-serve"]["Output tokens/s"].pairs == 2


def test_the_policies_have_the_memory_that_they_have_in_the_comparison(tmp_path: Path) -> None:
    request = asked(tmp_path / "out", max_model_len=8192, strict=True)
    scenario, choices = prepare(replace(request, strict=False))
    expected = scenario.cluster.groups[0].memory.blocks
    for trial in trials_of(request, choices, None).values():
        candidate = replace(trial.candidate, strict=False)
        placed = candidate.scenario(trial.demand.workload(trial.rate_per_s, 1))
        assert placed.cluster.groups[0].memory.blocks == expected
        assert json.loads(trial.key)["candidate"]["strict"] is True
