from __future__ import annotations

import gzip
import itertools
import json
from collections import defaultdict
from math import nan

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.traces import plain_perfetto
from traces.errors import InputError
from traces.event_lines import FRACTIONS, microseconds
from traces.perfetto import export_perfetto

NEEDED = {
    "M": {"args"},
    "X": {"dur", "args", "cat"},
    "C": {"args"},
    "b": {"id", "cat"},
    "e": {"id", "cat"},
}


def events_of(path):
    document = json.loads(path.read_text())
    assert document["displayTimeUnit"] == "ms"
    return document["traceEvents"]


def check_format(events):
    """The rules of the Trace Event Format that the phases used here have."""
    for event in events:
        assert {"name", "ph", "pid", "tid", "ts"} <= event.keys()
        assert NEEDED[event["ph"]] <= event.keys()
        assert isinstance(event["ts"], int | float)
        assert event["ph"] != "X" or event["dur"] >= 0
        assert event["ph"] != "C" or all(isinstance(v, int | float) for v in event["args"].values())


def check_threads(events):
    """Slices of a thread follow each other, exactly to the nanosecond."""
    threads = defaultdict(list)
    for event in events:
        if event["ph"] == "X":
            threads[event["pid"], event["tid"]].append(event)
    for slices in threads.values():
        for before, after in itertools.pairwise(slices):
            assert round(1e3 * (before["ts"] + before["dur"])) <= round(1e3 * after["ts"])


def check_spans(events):
    """Spans of a request are nested: each ends after those that began within it."""
    spans = defaultdict(list)
    for event in events:
        stack = spans[event.get("id")]
        if event["ph"] == "b":
            stack.append(event)
        elif event["ph"] == "e":
            begun = stack.pop()
            assert begun["name"] == event["name"]
            assert begun["ts"] <= event["ts"]
    assert not any(spans.values())


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), replicas=st.integers(1, 3))
def test_the_timeline_follows_the_trace_event_format(tmp_path, token_times, seed, replicas):
    run = token_times(seed, replicas).record()
    events = events_of(export_perfetto(run, tmp_path / "run.json"))
    check_format(events)
    check_threads(events)
    check_spans(events)
    assert sum(event["ph"] == "X" for event in events) == len(run.iterations)
    assert {event["pid"] for event in events} == set(range(1, replicas + 1))
    assert len({event["id"] for event in events if event["ph"] == "b"}) == len(run.requests)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), stages=st.lists(st.integers(1, 3), min_size=1, max_size=3))
def test_it_is_what_events_one_by_one_give(tmp_path, make_run, data, stages):
    run = data.draw(runs(make_run, stages))
    window = tuple(sorted(data.draw(st.tuples(MOMENTS, MOMENTS).filter(lambda moments: moments[0] != moments[1]))))
    most = data.draw(st.integers(0, 4))
    path = export_perfetto(run, tmp_path / "run.json", max_requests=most, start_s=window[0], end_s=window[1])
    assert path.read_bytes() == plain_perfetto.timeline(run, max_requests=most, window=window)
    check_format(events_of(path))


MOMENTS = st.floats(0, 2e6) | st.integers(0, 50).map(float)
COUNTS = ("prefill_tokens", "decodes", "outside", "waiting", "running", "blocks_used")
TIMES = ("arrival_s", "scheduled_s", "first_token_s", "finished_s")


@st.composite
def runs(draw, make_run, stages):
    """Runs of replicas with that many stages: iterations that hold anything, one after the other on each stage."""
    replicas = st.integers(0, len(stages) - 1)
    free_s = [[0.0] * count for count in stages]
    iterations = [draw(iterations_of(replica, free_s[replica])) for replica in draw(st.lists(replicas, max_size=12))]
    requests = [draw(requests_of(replicas)) for _ in range(draw(st.integers(0, 5)))]
    failed = [(draw(replicas), *sorted(draw(st.tuples(MOMENTS, MOMENTS)))) for _ in range(draw(st.integers(0, 2)))]
    names = ("replica", "failed_s", "recovered_s")
    return make_run(
        requests=sorted(requests, key=lambda request: request["arrival_s"]),
        iterations=iterations,
        groups=[{"stages": count, "kv_blocks": 90 + count, "role": "both"} for count in stages],
        failures=[{**dict(zip(names, each, strict=True)), "requests": 1, "tokens": 7} for each in failed],
    )


@st.composite
def iterations_of(draw, replica, free_s):
    moment = max(free_s[0], draw(MOMENTS))
    starts, times = [], []
    for stage in range(len(free_s)):
        starts.append(max(moment, free_s[stage]))
        times.append(draw(st.floats(0, 10)))
        moment = free_s[stage] = starts[-1] + times[-1]
    where = {"replica": replica, "start_s": starts[0], "end_s": moment}
    counts = {name: draw(st.integers(0, 90)) for name in COUNTS}
    return {**where, "stage_start_s": starts, "stage_time_s": times, **counts}


@st.composite
def requests_of(draw, replicas):
    times = dict(zip(TIMES, sorted(draw(st.lists(MOMENTS, min_size=4, max_size=4))), strict=True))
    unfinished = {"finished_s": nan} if draw(st.booleans()) else {}
    moved = {"decode_replica": draw(replicas), "transfer_s": draw(st.floats(0, 5))} if draw(st.booleans()) else {}
    return {"replica": draw(replicas), **times, **unfinished, **moved, "restarts": draw(st.integers(0, 2))}


@given(st.integers(-(10**15), 10**15))
def test_microseconds_are_written_as_floats_are(time_ns):
    assert microseconds(np.array([time_ns]))[0].as_py() == repr(time_ns / 1e3)


def test_microseconds_are_exact_for_any_length():
    assert microseconds(np.array([2**62 + 1]))[0].as_py() == "4611686018427387.905"
    assert len(set(FRACTIONS)) == 1000


def test_the_slices_of_a_batch_are_linked_from_stage_to_stage(tmp_path, make_run):
    iteration = {"start_s": 0.0, "end_s": 6.0, "stage_start_s": [0.0, 2.0, 4.0], "stage_time_s": [1.0, 1.0, 2.0]}
    run = make_run(iterations=[iteration] * 2, groups=[{"stages": 3}])
    slices = [event for event in events_of(export_perfetto(run, tmp_path / "run.json")) if event["ph"] == "X"]
    links = {(s["tid"], s["bind_id"]): (s.get("flow_in", False), s.get("flow_out", False)) for s in slices}
    ways = {1: (False, True), 2: (True, True), 3: (True, False)}
    assert links == {(stage, batch): way for stage, way in ways.items() for batch in (1, 2)}


def test_a_batch_outside_of_the_profiled_range_is_marked(tmp_path, make_run):
    iterations = [
        {"start_s": 0.0, "end_s": 1.0, "decodes": 1},
        {"start_s": 1.0, "end_s": 2.0, "decodes": 1, "outside": 3},
    ]
    events = events_of(export_perfetto(make_run(iterations=iterations), tmp_path / "run.json"))
    seen = [(event["name"], event["cat"], event["args"]["outside"]) for event in events if event["ph"] == "X"]
    assert seen == [("decode", "iteration", 0), ("decode (outside)", "iteration,outside", 3)]


def test_every_stage_is_a_thread(tmp_path, make_run):
    iterations = [
        {
            "start_s": start,
            "end_s": start + 2.0,
            "stage_start_s": [start, start + 1.0],
            "stage_time_s": [1.0, 1.0],
            "prefill_tokens": 7,
            "blocks_used": 25,
        }
        for start in (0.0, 1.0, 2.0)
    ]
    run = make_run(requests=[{}], iterations=iterations, groups=[{"stages": 2}])
    events = events_of(export_perfetto(run, tmp_path / "run.json"))
    check_threads(events)
    slices = [event for event in events if event["ph"] == "X"]
    assert [(s["tid"], s["ts"], s["dur"]) for s in slices[:2]] == [(1, 0, 1e6), (1, 1e6, 1e6)]
    assert {s["tid"] for s in slices} == {1, 2}
    assert slices[0]["name"] == "prefill"
    assert slices[0]["args"]["prefill_tokens"] == 7
    counters = {event["name"]: event["args"]["value"] for event in events if event["ph"] == "C"}
    assert counters == {"waiting": 0, "running": 0, "KV use": 0.25}


def test_a_request_is_queued_then_prefilled_then_decoded(tmp_path, make_run):
    request = {"arrival_s": 1.0, "scheduled_s": 2.0, "first_token_s": 3.0, "finished_s": 5.0}
    run = make_run(requests=[request], iterations=[{"start_s": 2.0, "end_s": 5.0, "decodes": 1}])
    events = events_of(export_perfetto(run, tmp_path / "run.json"))
    spans = [(event["ph"], event["name"], event["ts"]) for event in events if event["ph"] in "be"]
    assert spans == [
        ("b", "request 0", 1e6),
        ("b", "queued", 1e6),
        ("e", "queued", 2e6),
        ("b", "prefill", 2e6),
        ("e", "prefill", 3e6),
        ("b", "decode", 3e6),
        ("e", "decode", 5e6),
        ("e", "request 0", 5e6),
    ]


def test_a_request_that_moves_is_shown_where_it_was(tmp_path, make_run):
    """Prefilled on one replica, its KV sent to another."""
    request = {"arrival_s": 1.0, "scheduled_s": 2.0, "first_token_s": 3.0, "finished_s": 5.0}
    request |= {"replica": 0, "decode_replica": 1, "transfer_s": 0.5}
    groups = [{"role": "prefill"}, {"role": "decode"}]
    events = events_of(export_perfetto(make_run(requests=[request], groups=groups), tmp_path / "run.json"))
    begun = [(event["pid"], event["name"], event["ts"]) for event in events if event["ph"] == "b"]
    assert begun == [
        (1, "request 0", 1e6),
        (1, "queued", 1e6),
        (1, "prefill", 2e6),
        (2, "request 0", 3e6),
        (2, "transfer", 3e6),
        (2, "decode", 3.5e6),
    ]
    names = [event["args"]["name"] for event in events if event["name"] == "process_name"]
    assert names == ["replica 0 (prefill, toy)", "replica 1 (decode, toy)"]


def test_a_replica_that_fails_is_down_in_a_row_of_its_own(tmp_path, make_run):
    iterations = [{"start_s": 0.0, "end_s": 1.0, "decodes": 1}, {"start_s": 6.0, "end_s": 8.0, "decodes": 1}]
    failure = {"replica": 0, "failed_s": 2.0, "recovered_s": 5.0, "requests": 1, "tokens": 70}
    request = {"arrival_s": 0.0, "restarts": 1}
    run = make_run(requests=[request], iterations=iterations, failures=[failure])
    events = events_of(export_perfetto(run, tmp_path / "run.json"))
    down = [(event["tid"], event["ts"], event["dur"]) for event in events if event["name"] == "down"]
    assert down == [(2, 2e6, 3e6)]
    assert [event["args"]["restarts"] for event in events if event["name"] == "request 0" and event["ph"] == "b"] == [1]


def test_requests_and_window_are_bounded(tmp_path, token_times):
    run = token_times(5, 1).record()
    few = events_of(export_perfetto(run, tmp_path / "run.json", max_requests=2))
    assert {event["id"] for event in few if event["ph"] == "b"} == {"0", "1"}
    part = events_of(export_perfetto(run, tmp_path / "run.json", start_s=1.0, end_s=2.0))
    inside = (run.iterations.end_s > 1.0) & (run.iterations.start_s < 2.0)
    assert 0 < sum(event["ph"] == "X" for event in part) == inside.sum() < len(run.iterations)


def test_a_name_ending_in_gz_is_compressed_and_the_bytes_stay_the_same(tmp_path, token_times):
    run = token_times(5, 2).record()
    plain = export_perfetto(run, tmp_path / "run.json").read_bytes()
    packed = export_perfetto(run, tmp_path / "one.json.gz").read_bytes()
    assert gzip.decompress(packed) == plain
    assert export_perfetto(run, tmp_path / "other.json.gz").read_bytes() == packed


@pytest.mark.parametrize("wrong", [{"start_s": 2.0, "end_s": 1.0}, {"max_requests": -1}])
def test_a_senseless_request_writes_nothing(tmp_path, make_run, wrong):
    with pytest.raises(InputError):
        export_perfetto(make_run(), tmp_path / "run.json", **wrong)
    assert list(tmp_path.iterdir()) == []
