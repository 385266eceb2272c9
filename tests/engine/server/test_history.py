"""What is kept of the last minutes, and how much of it."""

from __future__ import annotations

import time
from math import ceil
from typing import Any

import pytest

pytest.importorskip("torch")

from hypothesis import given
from hypothesis import strategies as st

from engine.server.history import MOST_REQUESTS, RECENT_S, History
from engine.server.messages import Idle, Load
from engine.server.quantiles import Quantiles
from tests.engine.server.watched import Watched, ended, ready, step

NOTHING = Load(waiting=0, running=0, blocks_used=0)


def followed(*, minutes: int = 1) -> tuple[Watched, History, float]:
    """An engine, its history, and the beginning of the second after the next."""
    client = Watched(ready())
    return client, History(client, minutes=minutes), float(ceil(time.perf_counter())) + 1


def sums(seconds: list[dict[str, Any]], key: str) -> float:
    return float(sum(each[key] for each in seconds))


def test_a_second_holds_what_ended_in_it() -> None:
    client, history, start_s = followed()
    client.say(step(ended(1, start_s), end_s=start_s + 0.1, prefill_tokens=64, predicted_s=0.03, ttfts_s=(0.5,)))
    client.say(step(end_s=start_s + 0.2, decodes=2, gaps=((0.1, 2),), preemptions=1, predicted_s=None))
    client.say(step(end_s=start_s + 1.1, decodes=2, time_s=0.04, predicted_s=0.05))
    history.advance(start_s + 2.0)
    first, second = history.since(0.0)[-2:]
    assert (first["prompt_tokens"], first["output_tokens"], first["finished"], first["preemptions"]) == (64, 1, 1, 1)
    assert (first["iteration_s"], first["predicted_s"]) == (pytest.approx(0.02), pytest.approx(0.03))
    assert (second["iteration_s"], second["predicted_s"]) == (pytest.approx(0.04), pytest.approx(0.05))
    assert first["ttft_p99_s"] == pytest.approx(0.5, rel=0.01)
    assert first["tbt_p50_s"] == pytest.approx(0.1, rel=0.01)
    assert (first["running"], first["waiting"], first["kv_use"]) == (2, 1, 0.25)
    assert second["time_s"] == pytest.approx(first["time_s"] + 1)


def test_seconds_without_anything_are_there_too() -> None:
    client, history, start_s = followed()
    client.say(step(end_s=start_s + 0.5, ttfts_s=(1.0,)))
    client.say(Idle(produced=(), load=NOTHING))
    history.advance(start_s + RECENT_S + 2)
    later = history.since(0.0)[-3:]
    assert [each["iteration_s"] for each in later] == [None, None, None]
    assert [each["output_tokens"] for each in later] == [0, 0, 0]
    assert [each["ttft_p50_s"] is None for each in later[-2:]] == [True, True]


def test_only_what_is_new_is_told() -> None:
    _, history, start_s = followed()
    history.advance(start_s + 10)
    seconds = history.since(0.0)
    assert history.since(seconds[-3]["time_s"]) == seconds[-2:]
    assert history.since(seconds[-1]["time_s"]) == []


def test_what_is_kept_is_bounded() -> None:
    client, history, start_s = followed()
    for number in range(MOST_REQUESTS + 100):
        client.say(step(ended(number, float(number)), end_s=start_s + number / 2))
    assert len(history.since(0.0)) == 60
    assert [each.arrival_s for each in history.ended][:: MOST_REQUESTS - 1] == [100, MOST_REQUESTS + 99]
    begun = time.perf_counter()
    history.advance(start_s + 1e6)
    assert len(history.since(0.0)) == 60
    assert history.since(0.0)[-1]["time_s"] == pytest.approx(time.time() - begun + start_s + 1e6 - 1, abs=2)


def test_requests_without_output_are_no_load() -> None:
    client, history, start_s = followed()
    client.say(step(ended(1, start_s, started=False, finish="cancelled"), end_s=start_s))
    assert not history.ended


def test_policies_are_marked_when_they_change() -> None:
    client, history, start_s = followed()
    history.advance(start_s)
    client.ready = ready("orca")
    history.advance(start_s + 1)
    history.advance(start_s + 2)
    assert [policy["policy"] for _, policy in history.swaps] == ["sarathi-serve", "orca"]
    assert history.swaps[1][0] == pytest.approx(time.time(), abs=5)


@given(st.lists(st.tuples(st.floats(1e-5, 1e3), st.integers(1, 50)), min_size=1), st.integers(1, 100))
def test_percentiles_are_right_to_two_percent(values: list[tuple[float, int]], percent: int) -> None:
    parts = [Quantiles(), Quantiles()]
    for index, (value, count) in enumerate(values):
        parts[index % 2].add(value, count)
    every = sorted(value for value, count in values for _ in range(count))
    found = Quantiles.of(parts).percentile(percent)
    assert found == pytest.approx(every[ceil(percent / 100 * len(every)) - 1], rel=0.011)


def test_no_values_no_percentile() -> None:
    assert Quantiles().percentile(50) is None
    assert not Quantiles()
