"""A whole search, small: what it writes, that nothing that happens to it shows in that, and how it fails."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from policies.catalog import read_policy
from profiler.deployment import Deployment
from simulator.capacity.slo import parse_slo
from simulator.cluster_settings import GroupSettings, read_cluster
from simulator.prediction import PREDICTED
from simulator.search.documents import cluster_document
from simulator.search.fingerprint import fingerprint
from simulator.search.journal import Journal
from simulator.search.journalled import Journalled
from simulator.search.podium import prediction_rate
from simulator.search.request import Request, prepare
from simulator.search.search import search
from simulator.search.session import run_search
from simulator.trials.crew import Alone, as_plan, carry_out_rounds
from simulator.trials.plan import carry_out
from traces.errors import InputError
from traces.files import write_json

ROOT = Path(__file__).resolve().parents[3]
WRITTEN = ("policy.json", "deployment.json", "search.json", "report.html")
OPTIONS = {
    "model": "mistral-7b", "policies": "sarathi-serve,vllm", "max_num_seqs": "4,32", "slo": ["tbt:100 delay:300"],
    "max_num_batched_tokens": "128,512", "tensor_parallel_size": "1", "price": ["a100-sxm=1.79"], "finalists": 3,
    "seeds": 2, "most_trials": 8, "draws": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def request_(tmp_path_factory):
    """Sixty short requests, six candidates."""
    rng = np.random.default_rng(0)
    rows = zip(rng.integers(50, 900, 60), rng.integers(2, 40, 60), strict=True)
    lines = [f"2023-11-16 18:15:{second:02d}.0000000,{prompt},{output}" for second, (prompt, output) in enumerate(rows)]
    path = tmp_path_factory.mktemp("trace") / "trace.csv"
    path.write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *lines]) + "\n")
    return Request(workload=str(path), **OPTIONS)


def arguments(request):
    words = [
        f"--{name.replace('_', '-')}={value[0] if isinstance(value, list) else value}"
        for name, value in OPTIONS.items()
    ]
    return ["-m", "simulator", "search", "-w", request.workload, *words]


def contents(folder):
    return {name: (folder / name).read_bytes() for name in WRITTEN}


@pytest.fixture(scope="module")
def finished(tmp_path_factory, request_):
    folder = tmp_path_factory.mktemp("search") / "out"
    found = run_search(replace(request_, output=folder, workers=2))
    return folder, found


def test_what_is_written_can_be_deployed(finished, request_):
    folder, found = finished
    choice = read_policy(folder / "policy.json")
    predicted = choice.predicted
    assert Deployment.load(folder / "deployment.json").to_json() == predicted["deployment"]
    assert not (folder / "cluster.json").exists()
    best = found.finals[found.winner]
    assert predicted["workload"]["request_rate"] == prediction_rate(best)
    assert len(predicted["runners_up"]) == 2
    for metrics in (predicted["metrics"], *(each["metrics"] for each in predicted["runners_up"])):
        assert set(PREDICTED) - metrics.keys() == {"Goodput", "Goodput, requests/s"}
        assert metrics.keys() < set(PREDICTED)
        assert all(each["low"] <= each["value"] <= each["high"] for each in metrics.values())
    assert any(each["low"] < each["high"] for each in predicted["metrics"].values())
    assert parse_slo(predicted["slo"]) == request_.service_level()
    assert predicted["capacity"]["low"] < predicted["capacity"]["value"] < predicted["capacity"]["high"]
    assert "USD/M output tokens" in predicted["why"]
    assert "python -m simulator search --workload /" in predicted["command"]


def test_the_winner_is_the_best_of_the_finalists_and_the_cost_is_what_it_says(finished, request_):
    folder, found = finished
    document = json.loads((folder / "search.json").read_text())
    finals = document["rungs"][-1]["estimates"]
    assert document["winner"] == found.winner == min(finals, key=lambda label: finals[label]["value"])
    task = prepare(request_).task
    tokens = task.demand.workload(1.0).output_tokens.mean()
    rate = finals[found.winner]["capacity"]["value"]
    assert document["objective"]["value"] == pytest.approx(1.79 / 3600 / (rate * tokens) * 1e6)
    assert len(document["rungs"][0]["estimates"]) == document["space"]["tried"] == 6


def test_the_report_stands_alone(finished):
    page = (finished[0] / "report.html").read_text()
    assert "default-src 'none'" in page
    assert finished[1].winner in page
    for name in ("pareto", "latency", "rungs"):
        assert f'id="{name}"' in page


def test_a_journal_cut_anywhere_leads_to_the_same_and_runs_only_what_is_missing(finished, tmp_path, request_):
    folder, found = finished
    lines = (folder / "journal.jsonl").read_bytes().splitlines(keepends=True)
    task = prepare(request_).task
    for kept in (len(lines), len(lines) // 2):
        path = tmp_path / f"{kept}.jsonl"
        path.write_bytes(b"".join(lines[:kept]) + b'{"key": "torn')
        with Journal.open(path, fingerprint(task)) as journal:
            again = carry_out_rounds(search(task), Journalled(Alone(), journal))
            assert len(journal) == len(lines) - 1
        assert repr(again) == repr(found)
        keys = [json.loads(line)["key"] for line in path.read_text().splitlines()[1:]]
        assert len(keys) == len(set(keys)) == len(lines) - 1


def test_the_search_is_one_plan(finished, request_):
    folder, found = finished
    task = prepare(request_).task
    with Journal.open(folder / "journal.jsonl", fingerprint(task)) as journal:
        again = carry_out(as_plan(search(task)), lambda trials: [journal.get(trial) for trial in trials])
    assert repr(again) == repr(found)


def begun(request, folder):
    """Start a search and wait until it has written something down."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, *arguments(request), "-o", str(folder), "--workers", "1"],
        cwd=ROOT, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    journal = folder / "journal.jsonl"
    while process.poll() is None and not (journal.exists() and journal.read_bytes().count(b"\n") > 5):
        time.sleep(0.01)
    return process


@pytest.mark.parametrize(("number", "status"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_search_that_was_stopped_ends_with_the_same_bytes(finished, tmp_path, number, status, request_):
    folder = tmp_path / "out"
    with begun(request_, folder) as process:
        process.send_signal(number)
        said = process.communicate()[1]
    assert process.returncode == status
    if number != signal.SIGKILL:
        assert "simulations are kept in" in said
        assert "the same command goes on from there" in said
    assert not (folder / "search.json").exists()
    if number == signal.SIGKILL:
        run_search(replace(request_, output=folder, workers=1))
        assert contents(folder) == contents(finished[0])


class Broken:
    """A crew that cannot simulate one of the candidates."""

    places = 1

    def __init__(self, crew, label):
        self._crew = crew
        self._label = label
        self._failed = []

    def start(self, ticket, trial):
        if trial.candidate.label == self._label:
            self._failed.append((ticket, InputError("the process died", where=self._label)))
        else:
            self._crew.start(ticket, trial)

    def wait(self):
        failed, self._failed = self._failed, []
        return failed or self._crew.wait()


def test_a_candidate_that_cannot_be_simulated_is_listed_and_the_rest_goes_on(finished, request_, tmp_path):
    folder, found = finished
    task = prepare(request_).task
    path = tmp_path / "journal.jsonl"
    path.write_bytes((folder / "journal.jsonl").read_bytes())
    with Journal.open(path, fingerprint(task)) as journal:
        without = carry_out_rounds(search(task), Broken(Journalled(Alone(), journal), found.winner))
    assert without.steps[0].refused.keys() == {found.winner}
    assert "the process died" in without.steps[0].refused[found.winner]
    assert without.winner != found.winner
    assert len(without.steps[0].estimates) == 5


def test_the_journal_of_another_search_is_refused_and_another_folder_left_alone(finished, tmp_path, request_):
    folder, _ = finished
    before = contents(folder)
    with pytest.raises(InputError, match="journal of another search"):
        run_search(replace(request_, output=folder, seed=1))
    assert contents(folder) == before
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(InputError, match=r"holds 'thesis\.tex'"):
        run_search(replace(request_, output=tmp_path))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"objective": "cost", "price": None}, "no price for a100-sxm"),
        ({"objective": "speed"}, "unknown objective"),
        ({"devices": ","}, "lists nothing"),
        ({"devices": "abacus"}, "unknown device"),
        ({"policies": "fifo"}, "unknown policy"),
        ({"policies": ","}, "names no policy"),
        ({"model": "yi-34b", "gpu_memory_utilization": 0.5}, "nothing in the search space can run"),
        ({"max_num_seqs": "x"}, "--max-num-seqs"),
        ({"max_model_len": 100}, "--max-model-len"),
        ({"settings": 0}, "--settings"),
        ({"workers": 0}, "--workers"),
        ({"seeds": 9}, "--most-trials"),
        ({"request_rate": -1.0}, "--request-rate"),
        ({"profile": [f"h100={__file__}"]}, "is not searched"),
        ({"profile": ["missing"]}, "--profile missing: no such file"),
        ({"workload": "missing.csv"}, "missing.csv"),
    ],
)
def test_bad_input_is_one_line_before_anything_is_written(tmp_path, changes, said, request_):
    with pytest.raises(InputError, match=re.escape(said)):
        run_search(replace(request_, output=tmp_path / "out", **changes))
    assert not (tmp_path / "out").exists()


def test_what_nobody_can_meet_is_said_and_the_journal_stays(tmp_path, request_):
    with pytest.raises(InputError, match=r"none of 1 candidates meets P99 TTFT.*P99 TTFT \d.* ms"):
        few = replace(request_, policies="vllm", max_num_seqs="32", slo=["ttft:1"], workers=1, output=tmp_path / "out")
        run_search(few)
    assert (tmp_path / "out" / "journal.jsonl").read_text().count("\n") > 2


def test_without_ray_it_is_said_how_to_install_it(tmp_path, monkeypatch, request_):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"Ray is not installed.*charioteer\[ray\]"):
        run_search(replace(request_, output=tmp_path / "out", ray="auto"))


def test_a_cluster_is_written_as_run_takes_it(tmp_path, request_):
    base = next(iter(prepare(request_).task.candidates.values())).cluster
    for groups in (
        (GroupSettings(count=3),),
        (GroupSettings(count=2, role="prefill"), GroupSettings(role="decode", device="h100", weight=None)),
    ):
        cluster = replace(base, groups=groups)
        write_json(tmp_path / "cluster.json", cluster_document(cluster))
        assert read_cluster(tmp_path / "cluster.json") == cluster
    assert cluster_document(base) is None


def test_ray_and_the_pool_agree_to_the_last_digit(finished, tmp_path, request_):
    pytest.importorskip("ray", reason="Ray is not installed (the extra [ray])")
    run_search(replace(request_, output=tmp_path / "out", ray="local", workers=2))
    assert contents(tmp_path / "out") == contents(finished[0])
