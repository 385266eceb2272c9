from __future__ import annotations

import gzip
import itertools
import json
from collections import defaultdict

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from traces.errors import InputError
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
