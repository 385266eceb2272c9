"""The page, what it may load, and what it is told."""

from __future__ import annotations

import re
import time
from importlib.metadata import EntryPoint
from typing import Any

import pytest

pytest.importorskip("torch")

from fastapi import Depends, FastAPI, HTTPException
from fastapi.testclient import TestClient

from engine.server.dashboard import FEWEST, Dashboard, dashboard_router
from engine.server.forecast import ENTRY_POINTS
from tests.engine.server.watched import Watched, ended, ready, step

WHERE = EntryPoint("simulator", "simulator.forecast:Forecaster", ENTRY_POINTS)


def shut() -> None:
    raise HTTPException(401)


def opened(client: Watched, *, guarded: bool = False) -> tuple[TestClient, Dashboard]:
    dashboard, app = Dashboard(client, model_name="tiny", where=WHERE), FastAPI()
    app.include_router(dashboard_router(dashboard, dependencies=[Depends(shut)] if guarded else []))
    return TestClient(app), dashboard


def busy(client: Watched, requests: int = FEWEST) -> None:
    now_s = time.perf_counter()
    produced = [ended(number, now_s - 10 + number / 10) for number in range(requests)]
    client.say(step(*produced, prefill_tokens=64, decodes=2, gaps=((0.05, 2),), ttfts_s=(1.0,)))


def test_the_page_and_all_it_loads_come_from_here() -> None:
    http, _ = opened(Watched(ready()))
    page = http.get("/dashboard")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in page.headers["content-security-policy"]
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(loaded) == 3
    for each in loaded:
        answer = http.get(f"/{each}")
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith(("text/javascript", "text/css"))
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert "Plotly" in http.get("/dashboard/plotly.js").text[:10000]
    assert "<script>" not in page.text


def test_without_a_key_the_page_is_there_and_tells_nothing() -> None:
    http, _ = opened(Watched(ready()), guarded=True)
    assert http.get("/dashboard").status_code == 200
    assert "tiny" not in http.get("/dashboard").text
    assert http.get("/dashboard/data").status_code == 401


def test_what_it_is_told() -> None:
    client = Watched(ready(predicted={"metrics": {"TTFT P99": {"value": 0.8, "low": 0.7, "high": 0.9}}}))
    http, _ = opened(client)
    time.sleep(1.1)
    client.say(step())
    client.ready = ready("orca")
    told = http.get("/dashboard/data").json()
    assert (told["model"], told["policy"]["policy"], told["unhealthy"]) == ("tiny", "orca", None)
    assert [each["policy"]["policy"] for each in told["swaps"]] == ["sarathi-serve", "orca"]
    assert all("predicted" not in each["policy"] for each in told["swaps"])
    assert told["seconds"]
    assert http.get("/dashboard/data", params={"since_s": told["seconds"][-1]["time_s"]}).json()["seconds"] == []
    assert http.get("/dashboard/data", params={"since_s": "nan"}).status_code == 422


def test_what_a_search_predicted_is_shown() -> None:
    predicted = {"metrics": {"TTFT P99": {"value": 0.8, "low": 0.7, "high": 0.9}, "Goodput": {"value": 1}}}
    http, _ = opened(Watched(ready(predicted=predicted)))
    assert http.get("/dashboard/data").json()["searched"] == {"ttft_p99_s": 0.8}


def test_the_load_is_simulated_while_somebody_looks() -> None:
    client = Watched(ready())
    http, dashboard = opened(client)
    busy(client, FEWEST - 1)
    with http:
        assert "is simulated once 8 requests have ended" in http.get("/dashboard/data").json()["status"]
        busy(client)
        forecasts = wait_for(http, "forecasts")
        assert len(forecasts) == 1
        assert forecasts[0]["requests_simulated"] == 2 * FEWEST - 1
        assert 0 < forecasts[0]["ttft_p50_s"] <= forecasts[0]["ttft_p99_s"]
        assert forecasts[0]["output_tokens"] > 0
        assert http.get("/dashboard/data").json()["status"] == ""
        assert len(http.get("/dashboard/data").json()["forecasts"]) == 1, "not at every look"
        client.ready = ready("orca")
        for _ in range(300):
            if len(http.get("/dashboard/data").json()["forecasts"]) == 2:
                break
            time.sleep(0.05)
        else:
            raise AssertionError("another policy is simulated at once")
    dashboard.close()


def test_a_load_that_cannot_be_simulated_is_said_to_be() -> None:
    client = Watched(ready(max_num_batched_tokens="many"))
    http, dashboard = opened(client)
    busy(client)
    with http:
        assert http.get("/dashboard/data").json()["status"] == ""
        assert wait_for(http, "status").startswith("The load is not simulated: the policy: sarathi-serve: ")
    dashboard.close()


def wait_for(http: TestClient, key: str) -> Any:
    for _ in range(300):
        if found := http.get("/dashboard/data").json()[key]:
            return found
        time.sleep(0.05)
    raise AssertionError(f"no {key}")


def test_without_a_cost_model_it_says_so() -> None:
    http, _ = opened(Watched(ready(deployment=None)))
    assert "start with --profile" in http.get("/dashboard/data").json()["status"]
