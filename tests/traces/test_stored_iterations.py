from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.traces import plain_metrics
from traces.metrics import measure
from traces.replica_rows import ReplicaRows
from traces.run_record import read_run, write_run
from traces.stalls import find_stalls

QUIET = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}


@settings(max_examples=30, **QUIET)
@given(seed=st.integers(0, 2**32), replicas=st.integers(1, 4))
def test_metrics_are_those_computed_plainly_to_the_last_digit(token_times, seed, replicas):
    run = token_times(seed, replicas).record()
    metrics = measure(run)
    assert metrics.tbt_s == plain_metrics.tbt(run) or not metrics.tbt_s.count
    assert metrics.queue_length == plain_metrics.queue_length(run)
    assert metrics.kv_use == plain_metrics.kv_use(run)
    assert metrics.mfu.iteration == plain_metrics.distribution(np.array(plain_metrics.mfu(run)))
    assert metrics.batch.decodes == plain_metrics.distribution(run.iterations.decodes)
    busy = [(each.replica, each.stage, each.busy_s, each.idle_s) for each in metrics.bubbles]
    assert busy == plain_metrics.bubbles(run)
    threshold_s = 2 * np.median(run.iterations.gap_s) if len(run.iterations.gap_s) else 0.1
    found = find_stalls(run, threshold_s)
    columns = (found.iteration, found.length_s, found.sequences, found.prefill_tokens)
    assert list(zip(*(column.tolist() for column in columns), strict=True)) == plain_metrics.stalls(run, threshold_s)


@settings(max_examples=15, **QUIET)
@given(seed=st.integers(0, 2**32), replicas=st.integers(1, 3), kept=st.sampled_from([0, 1000, 1 << 28]))
def test_what_is_kept_in_memory_changes_no_digit(tmp_path, token_times, seed, replicas, kept):
    run = token_times(seed, replicas).record()
    whole = replace(run, iterations=run.iterations.in_memory())
    stored = read_run(write_run(tmp_path / "run", run))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("traces.stored_iterations.KEPT_BYTES", kept)
        metrics = measure(stored).as_dict()
    assert json.dumps(metrics) == json.dumps(measure(run).as_dict()) == json.dumps(measure(whole).as_dict())


def test_columns_asked_for_last_are_kept(tmp_path, token_times, monkeypatch):
    run = read_run(write_run(tmp_path / "run", token_times(3, 2).record()))
    assert run.iterations.end_s is run.iterations.end_s
    assert run.iterations.gap_s is run.iterations.gap_s
    monkeypatch.setattr("traces.stored_iterations.KEPT_BYTES", run.iterations.end_s.nbytes)
    first = run.iterations.end_s
    assert run.iterations.end_s is first
    _ = run.iterations.flops
    assert run.iterations.end_s is not first
    np.testing.assert_array_equal(run.iterations.end_s, first)
    with pytest.raises(AttributeError):
        _ = run.iterations.surprise


def test_it_says_what_it_is_without_reading_it(tmp_path, token_times):
    run = read_run(write_run(tmp_path / "run", token_times(3, 2).record()))
    (tmp_path / "run" / "iterations.parquet").write_bytes(b"")
    assert repr(run.iterations) == f"<{len(run.iterations)} iterations of {tmp_path / 'run' / 'iterations.parquet'}>"


def test_a_record_that_moves_is_still_read(tmp_path, token_times):
    run = read_run(write_run(tmp_path / "run", token_times(3, 2).record()))
    (tmp_path / "run").rename(tmp_path / "elsewhere")
    again = read_run(tmp_path / "elsewhere")
    assert json.dumps(measure(run).as_dict()) == json.dumps(measure(again).as_dict())


@given(replica=st.lists(st.integers(0, 4), max_size=50), count=st.integers(5, 6))
def test_the_rows_of_a_replica(replica, count):
    column = np.array(replica, np.int32)
    rows = ReplicaRows(column, count)
    for each in range(count):
        assert rows.of(each).tolist() == np.flatnonzero(column == each).tolist()
        assert rows.pick(column, each).tolist() == column[column == each].tolist()
    alone = ReplicaRows(np.zeros(7, np.int32), 1)
    assert alone.of(0).tolist() == list(range(7))


def test_more_replicas_than_two_digits_hold():
    column = np.array([70_000, 3, 70_000, 4], np.int32)
    assert ReplicaRows(column, 70_001).of(70_000).tolist() == [0, 2]
