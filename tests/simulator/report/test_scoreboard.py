from __future__ import annotations

from dataclasses import replace
from math import nan

import pytest

from simulator.scoreboard import duration, scoreboard, three_digits
from traces.goodput import parse_goodput
from traces.metrics import measure


@pytest.fixture(scope="module")
def base(played):
    return measure(played("sarathi-serve")["sarathi-serve"], parse_goodput("ttft:500"))


def rows(runs):
    return {score.label: score for score in scoreboard(runs)}


def with_p99(metrics, seconds):
    return replace(metrics, tbt_s=replace(metrics.tbt_s, p99=seconds))


def test_the_lowest_latency_and_the_highest_throughput_win(base):
    fast = replace(base.throughput, requests_per_s=2 * base.throughput.requests_per_s)
    found = rows({"a": with_p99(base, 0.05), "b": replace(with_p99(base, 0.04), throughput=fast)})
    assert found["TBT P99 (ms)"].texts == ("50.0", "40.0")
    assert found["TBT P99 (ms)"].best == {1}
    assert found["Requests/s"].best == {1}


def test_values_within_half_a_percent_are_equal(base):
    found = rows({"a": with_p99(base, 0.0401), "b": with_p99(base, 0.04), "c": with_p99(base, 0.05)})
    assert found["TBT P99 (ms)"].best == {0, 1}


def test_where_all_are_equal_none_wins(base):
    found = rows({"a": with_p99(base, 0.0401), "b": with_p99(base, 0.04)})
    assert not any(score.best for score in found.values())
    assert not any(score.best for score in rows({"alone": base}).values())


def test_a_run_that_left_requests_behind_is_best_in_nothing(base):
    quick = replace(with_p99(base, 0.001), unfinished=3)
    found = rows({"a": with_p99(base, 0.04), "b": quick})
    assert found["TBT P99 (ms)"].best == {0}
    assert found["Unfinished requests"].best == {0}
    assert not any(1 in score.best for score in found.values())


def test_what_has_no_better_has_no_winner(base):
    other = replace(base, kv_use=replace(base.kv_use, mean=0.9))
    score = rows({"a": base, "b": other})["KV use, mean (%)"]
    assert score.texts[1] == "90.0"
    assert not score.rankable
    assert not score.best


def test_goodput_is_there_only_with_targets(base):
    assert "Goodput (%)" in rows({"a": base})
    assert "Goodput (%)" not in rows({"a": replace(base, goodput=None)})
    both = rows({"a": base, "b": replace(base, goodput=None)})
    assert both["Goodput (%)"].texts[1] == "–"


def test_long_times_are_in_seconds(base):
    slow = replace(base, ttft_s=replace(base.ttft_s, p50=12.0))
    found = rows({"a": base, "b": slow})
    assert found["TTFT P50 (s)"].texts[1] == "12.0"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.0001, "0"),
        (0.01234, "0.012"),
        (0.9996, "1.00"),
        (1.234, "1.23"),
        (9.996, "10.0"),
        (12.34, "12.3"),
        (99.96, "100"),
        (123456.7, "123,457"),
        (nan, "–"),
    ],
)
def test_numbers_have_three_digits(value, text):
    assert three_digits(value) == text


@pytest.mark.parametrize(("seconds", "text"), [(0.0431, "43.1 ms"), (1.234, "1.23 s"), (nan, "–")])
def test_times_are_said_as_people_say_them(seconds, text):
    assert duration(seconds) == text


def test_time_with_nothing_in_flight_is_no_bubble(played, base):
    """A replica that waits for requests is idle; a stage that waits for another stage has a bubble."""
    assert any(stage.idle_s > 0 for stage in base.bubbles)
    staged = measure(played("vllm", requests=30, rate_per_s=0.3, stages=2)["vllm"])
    assert sum(stage.idle_s - stage.in_flight_s for stage in staged.bubbles) > 1.0
    share = sum(stage.in_flight_s for stage in staged.bubbles) / sum(
        stage.in_flight_s + stage.busy_s for stage in staged.bubbles
    )
    assert rows({"one stage": base, "two": staged})["Bubbles (%)"].texts == ("0", three_digits(100 * share))
