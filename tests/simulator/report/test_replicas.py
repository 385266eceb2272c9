"""What is shown of a run with several replicas, and only of such a run."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from simulator.load_figures import time_share_panel
from simulator.provenance import facts, headline
from simulator.replica_figure import replica_panels
from simulator.report import write_report
from simulator.scoreboard import scoreboard
from simulator.table import print_comparison
from simulator.verdicts import verdicts
from tests.traces.conftest import TokenTimes
from traces.metrics import measure
from traces.replica_load import replica_load
from traces.run_record import ReplicaFailure

FAILURE = ReplicaFailure(replica=0, failed_s=0.5, recovered_s=1.0, requests=3, tokens=1234)


def cluster(replicas=4, seed=3, **meta):
    run = TokenTimes(seed, replicas).record()
    return replace(run, meta=replace(run.meta, router={"name": "round-robin"}, **meta))


@pytest.fixture
def run():
    return cluster()


def labels(metrics):
    return {score.label.removesuffix(" (ms)").removesuffix(" (s)"): score for score in scoreboard(metrics)}


def test_the_header_says_what_the_cluster_is(run):
    assert "4 x toy, TP 1, PP 1 · 4 replicas, round-robin · 100 KV blocks of 16 (1,600 tokens) a replica" in headline(
        run
    )
    alone = cluster(replicas=1)
    assert "replica" not in headline(alone).splitlines()[0]


def test_unequal_replicas_are_told_apart(run):
    (group,) = run.meta.groups
    prefill = replace(
        group, count=1, role="prefill", gpus=8, deployment={"model": "toy", "device": "big"}, kv_blocks=500
    )
    decode = replace(group, count=3, role="decode")
    meta = replace(run.meta, groups=(prefill, decode), failures=(FAILURE,))
    told = dict(facts({"a": replace(run, meta=meta)}))
    assert told["Device"] == "8 x big + 3 x toy"
    assert told["Cluster"] == "1 prefill replica + 3 decode replicas, round-robin"
    assert told["KV cache"] == (
        "1 prefill big: 500 KV blocks of 16 (8,000 tokens) a replica; "
        "3 decode toy: 100 KV blocks of 16 (1,600 tokens) a replica"
    )
    assert told["Failures"] == "1, of 1 of 4 replicas"
    assert told["Model"] == "toy"


def test_a_run_without_failures_beside_one_with_some_says_none(run):
    failed = replace(run, meta=replace(run.meta, failures=(FAILURE,)))
    assert dict(facts({"calm": run, "failed": failed}))["Failures"] == "calm: none; failed: 1, of 1 of 4 replicas"
    assert "Failures" not in dict(facts({"calm": run}))


def test_failures_are_rows_of_runs_with_failures_alone(run):
    calm, failed = measure(run), measure(replace(run, meta=replace(run.meta, failures=(FAILURE,))))
    names = {"Failures", "Down time, all replicas", "Requests sent back", "KV tokens lost", "Requests restarted"}
    assert not names & labels({"calm": calm}).keys()
    found = labels({"calm": calm, "failed": failed})
    assert names <= found.keys()
    assert found["KV tokens lost"].texts == ("–", "1,234")
    assert found["Down time, all replicas"].texts == ("–", "500")
    assert "KV transfer P50" not in found
    assert "Bubble time of a request, P50" not in found
    moved = replace(calm, transfer_s=replace(calm.ttft_s, p99=0.025), bubble_s=replace(calm.ttft_s, p50=0.004))
    found = labels({"moved": moved})
    assert found["KV transfer P99"].texts == ("25.0",)
    assert found["Bubble time of a request, P50"].texts == ("4.00",)


def test_down_time_is_shown_beside_idle_time(run):
    calm, failed = measure(run), measure(replace(run, meta=replace(run.meta, failures=(FAILURE,))))
    assert "down" not in {bar.name for bar in time_share_panel({"a": calm}).figure.data}
    panel = time_share_panel({"a": calm, "b": failed})
    shares = np.array([bar.x for bar in panel.figure.data])
    np.testing.assert_allclose(shares.sum(axis=0), 100)
    assert "Down is" in panel.caption


def test_failures_are_among_the_caveats(run):
    failed = measure(replace(run, meta=replace(run.meta, failures=(FAILURE,))))
    said = " ".join(verdicts({"a": measure(run), "b": failed}))
    assert "Replicas failed: b 1 time, 3 requests sent back." in said


def test_the_load_of_each_replica_is_that_of_its_requests_and_iterations(run):
    load = replica_load(run)
    for replica in range(4):
        mine = run.iterations.replica == replica
        assert load.requests[replica] == (run.requests.replica == replica).sum()
        assert load.busy_share[replica] == pytest.approx(run.iterations.busy_s[mine].sum() / (run.end_s - run.start_s))
    down = replica_load(replace(run, meta=replace(run.meta, failures=(FAILURE,))))
    assert down.busy_share[0] > load.busy_share[0]
    assert down.busy_share[1] == load.busy_share[1]


def test_few_replicas_are_bars_and_many_a_curve(run):
    (bars,) = replica_panels({"few": run, "alone": cluster(replicas=1)})
    assert [(trace.type, trace.name, len(trace.x)) for trace in bars.figure.data] == [("bar", "few", 4)] * 2
    (curve,) = replica_panels({"few": run, "many": cluster(replicas=40)})
    assert [(trace.type, trace.name) for trace in curve.figure.data] == [
        ("scatter", "few"),
        ("scatter", "few"),
        ("scatter", "many"),
        ("scatter", "many"),
    ]
    requests = replica_load(run).requests
    assert (curve.figure.data[0].x[0], curve.figure.data[0].x[-1]) == (requests.min(), requests.max())
    assert f"few: {requests.min()} to {requests.max()} requests a replica." in curve.caption
    assert replica_panels({"alone": cluster(replicas=1)}) == []


def test_the_caption_says_which_replicas_are_which(run):
    (group,) = run.meta.groups
    groups = (replace(group, count=1, role="prefill"), replace(group, count=3, role="decode"))
    (panel,) = replica_panels({"apart": replace(run, meta=replace(run.meta, groups=groups))})
    assert panel.caption.endswith("Its replicas are 1 prefill toy, then 3 decode toy.")


def test_report_and_table_of_a_cluster(run, tmp_path):
    metrics = measure(run)
    text = write_report(tmp_path / "r.html", {"a": (run, metrics)}).read_text()
    assert 'id="replicas"' in text
    file = io.StringIO()
    print_comparison({"a": run}, {"a": metrics}, Console(file=file, width=160))
    assert "4 replicas, round-robin" in file.getvalue()
