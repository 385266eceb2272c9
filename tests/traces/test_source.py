"""Opening a workload by name or path, with arrivals as asked for."""

from __future__ import annotations

import math

import numpy as np
import pytest

from traces.errors import InputError
from traces.source import open_workload, parse_window
from traces.writers import write_workload


@pytest.fixture
def timed(tmp_path):
    path = tmp_path / "timed.csv"
    path.write_text("arrival_s,prompt_tokens,output_tokens\n1,10,1\n2,20,2\n2,30,3\n5,40,4\n")
    return path


@pytest.fixture
def lengths(tmp_path):
    path = tmp_path / "lengths.csv"
    path.write_text("num_prefill_tokens,num_decode_tokens\n10,1\n20,2\n30,3\n40,4\n")
    return path


def test_a_preset_by_name():
    workload = open_workload("chat", request_rate=3.0, seed=4)
    assert len(workload) == 2048
    assert workload.name == "chat"
    assert workload.timed
    assert workload.rate_per_s == pytest.approx(3.0, rel=0.1)
    again = open_workload("chat", request_rate=3.0, seed=4)
    np.testing.assert_array_equal(workload.arrival_s, again.arrival_s)
    assert len(open_workload("summarization", num_prompts=10)) == 10


@pytest.mark.parametrize("rate", [None, math.inf])
def test_without_a_finite_rate_all_requests_of_a_preset_arrive_at_once(rate):
    workload = open_workload("chat", num_prompts=5, request_rate=rate)
    assert workload.arrival_s.tolist() == [0.0] * 5
    assert workload.timed == (rate is not None)


def test_a_file_named_as_a_preset_is_reached_by_its_path(tmp_path, monkeypatch, timed):
    monkeypatch.chdir(tmp_path)
    timed.rename(tmp_path / "chat")
    assert len(open_workload("./chat")) == 4
    assert len(open_workload("chat")) == 2048


def test_a_timed_file_keeps_its_arrivals_unless_a_rate_is_asked_for(timed):
    assert open_workload(timed).arrival_s.tolist() == [1, 2, 2, 5]
    scaled = open_workload(timed, request_rate=1.5)
    assert scaled.arrival_s.tolist() == [0.5, 1.0, 1.0, 2.5]
    assert scaled.rate_per_s == pytest.approx(1.5)
    assert open_workload(timed, request_rate=math.inf).arrival_s.tolist() == [0, 0, 0, 0]
    assert open_workload(timed, scale=2.0).arrival_s.tolist() == [0.5, 1.0, 1.0, 2.5]


def test_window_then_head_then_rate(timed):
    workload = open_workload(timed, window=(2.0, math.inf), num_prompts=2)
    assert workload.arrival_s.tolist() == [0.0, 0.0]
    assert workload.prompt_tokens.tolist() == [20, 30]
    assert open_workload(timed, num_prompts=2, request_rate=4.0).arrival_s.tolist() == [0.25, 0.5]


def test_a_file_of_lengths_gets_arrivals_in_its_own_order(lengths):
    workload = open_workload(lengths, request_rate=2.0, seed=1)
    assert workload.prompt_tokens.tolist() == [10, 20, 30, 40]
    assert workload.timed
    np.testing.assert_array_equal(
        workload.arrival_s, open_workload("chat", num_prompts=4, request_rate=2.0, seed=1).arrival_s
    )
    bursty = open_workload(lengths, request_rate=2.0, burstiness=0.2, seed=1)
    assert bursty.arrival_s.tolist() != workload.arrival_s.tolist()
    assert not open_workload(lengths, num_prompts=3).timed


def test_prefix_hashes_stay_with_a_file_of_another_rate(tmp_path):
    path = tmp_path / "m.jsonl"
    rows = ['"timestamp": 0, "input_length": 600, "output_length": 1, "hash_ids": [1, 2]'] * 2
    path.write_text("".join("{" + row.replace(": 0", f": {i * 1000}", 1) + "}\n" for i, row in enumerate(rows)))
    workload = open_workload(path, request_rate=10.0)
    assert workload.arrival_s.tolist() == pytest.approx([0.0, 0.1])
    assert workload.hash_ids is not None
    assert workload.hash_ids.of(1).tolist() == [1, 2]


BAD = [
    ({"num_prompts": 0}, "0 requests"),
    ({"request_rate": -1.0}, "request rate -1.0"),
    ({"request_rate": math.nan}, "request rate nan"),
    ({"burstiness": 0.5}, "burstiness 0.5 of a workload that has arrival times"),
    ({"scale": 2.0, "request_rate": 2.0}, "a scale and a request rate"),
    ({"scale": 0.0}, "rate factor 0.0"),
    ({"window": (3.0, 2.0)}, "the window 3:2"),
    (
        {"window": (6.0, 9.0)},
        "no request in the window 6:9; expected one that overlaps its arrivals from 1 to 5 s",
    ),
    ({"window": (2.0, 3.0), "request_rate": 1.0}, "all 2 requests arrive at once"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_an_option_that_does_not_fit_a_timed_file_is_refused(timed, options, message):
    with pytest.raises(InputError, match=message):
        open_workload(timed, **options)


@pytest.mark.parametrize("options", [{"window": (0.0, 1.0)}, {"scale": 2.0}])
@pytest.mark.parametrize("preset", [True, False])
def test_what_needs_arrival_times_is_refused_without_them(lengths, options, preset):
    with pytest.raises(InputError, match="without arrival times"):
        open_workload("chat" if preset else lengths, **options)


@pytest.mark.parametrize("options", [{"seed": -1}, {"request_rate": 0.0}, {"num_prompts": 0}])
@pytest.mark.parametrize("preset", [True, False])
def test_an_option_that_is_none_is_refused(lengths, options, preset):
    with pytest.raises(InputError, match="expected"):
        open_workload("chat" if preset else lengths, **({"request_rate": 1.0} | options))


def test_a_name_that_is_neither_preset_nor_file():
    with pytest.raises(InputError, match="chatt: no such file; expected a workload file, or one of chat, summ"):
        open_workload("chatt")


@pytest.mark.parametrize(
    ("text", "window"),
    [("600:1200", (600, 1200)), (":5", (0, 5)), ("2.5:", (2.5, math.inf)), (":", (0, math.inf))],
)
def test_a_window_as_text(text, window):
    assert parse_window(text) == window


@pytest.mark.parametrize("text", ["", "5", "5:5", "6:5", "a:b", "nan:3", "-1:3", "1:2:3"])
def test_a_text_that_is_no_window_is_refused(text):
    with pytest.raises(InputError, match="--window"):
        parse_window(text)


@pytest.mark.data
def test_the_burst_shape_of_a_published_trace_survives_a_rate(data, tmp_path):
    path = data / "traces" / "AzureLLMInferenceTrace_code.csv.gz"
    real, scaled = open_workload(path), open_workload(path, request_rate=10.0)
    assert scaled.rate_per_s == pytest.approx(10.0)
    shape = np.diff(real.arrival_s) / np.diff(real.arrival_s).mean()
    np.testing.assert_allclose(np.diff(scaled.arrival_s) * 10.0, shape, atol=1e-9)
    write_workload(tmp_path / "scaled.csv", scaled)
    np.testing.assert_array_equal(open_workload(tmp_path / "scaled.csv").arrival_s, scaled.arrival_s)
