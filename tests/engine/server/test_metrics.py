"""Metrics as Prometheus reads them, with its own parsers."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch")

from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from engine.server.messages import Failed, Idle, Load, Produced
from engine.server.metrics import NEXT_TOKEN_S, Metrics, lengths_up_to, metrics_router
from tests.engine.server.watched import Watched, ended, ready, step

OURS = {"model_name": "tiny", "engine": "0"}
VLLM = (
    "num_requests_running",
    "num_requests_waiting",
    "kv_cache_usage_perc",
    "prefix_cache_queries_total",
    "prefix_cache_hits_total",
    "num_preemptions_total",
    "prompt_tokens_total",
    "generation_tokens_total",
    "request_success_total",
    "iteration_tokens_total_count",
    "time_to_first_token_seconds_bucket",
    "inter_token_latency_seconds_bucket",
    "request_time_per_output_token_seconds_bucket",
    "e2e_request_latency_seconds_bucket",
    "request_queue_time_seconds_bucket",
    "request_prefill_time_seconds_bucket",
    "request_decode_time_seconds_bucket",
    "request_inference_time_seconds_bucket",
    "request_prompt_tokens_bucket",
    "request_generation_tokens_bucket",
)


class Scraped:
    """What comes over HTTP."""

    def __init__(self) -> None:
        self.client = Watched(ready())
        registry, app = CollectorRegistry(), FastAPI()
        Metrics(self.client, model_name="tiny", registry=registry)
        app.include_router(metrics_router(registry))
        self.http = TestClient(app)

    def samples(self, **labels: str) -> dict[str, float]:
        answer = self.http.get("/metrics")
        assert answer.headers["content-type"].startswith("text/plain; version=")
        return {
            sample.name: sample.value
            for family in text_string_to_metric_families(answer.text)
            for sample in family.samples
            if (labels.items() <= sample.labels.items()) and (labels or "le" not in sample.labels)
        }


def test_all_names_that_dashboards_for_vllm_ask_for_are_there() -> None:
    scraped = Scraped()
    scraped.client.say(step(ended(1, 0.0)))
    names = {
        sample.name
        for family in text_string_to_metric_families(scraped.http.get("/metrics").text)
        for sample in family.samples
        if OURS.items() <= sample.labels.items()
    }
    assert {f"vllm:{name}" for name in VLLM} <= names


def test_names_keep_their_colons_whatever_a_scraper_accepts() -> None:
    """What Prometheus 2 and 3 send."""
    scraped = Scraped()
    scraped.client.say(step(ended(1, 0.0), gaps=((0.02, 3),)))
    for accept in ("application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1", "*/*"):
        answer = scraped.http.get("/metrics", headers={"Accept": accept})
        families = {family.name: family for family in text_string_to_metric_families(answer.text)}
        assert families["vllm:inter_token_latency_seconds"].type == "histogram"
        assert {sample.name for sample in families["vllm:request_success"].samples} == {"vllm:request_success_total"}


def test_gauges_are_those_of_the_last_word() -> None:
    scraped = Scraped()
    scraped.client.say(step(load=Load(waiting=7, running=3, blocks_used=500)))
    assert scraped.samples()["vllm:num_requests_waiting"] == 7
    assert scraped.samples()["vllm:num_requests_running"] == 3
    assert scraped.samples()["vllm:kv_cache_usage_perc"] == 0.5
    gone = Produced(key=1, finish="cancelled")
    scraped.client.say(Idle(produced=(gone,), load=Load(waiting=0, running=0, blocks_used=0)))
    assert scraped.samples()["vllm:num_requests_waiting"] == scraped.samples()["vllm:kv_cache_usage_perc"] == 0
    assert scraped.samples(finished_reason="abort")["vllm:request_success_total"] == 1


STEPS = st.lists(
    st.fixed_dictionaries(
        {
            "prefill_tokens": st.integers(0, 5000),
            "decodes": st.integers(0, 300),
            "preemptions": st.integers(0, 3),
            "cache_queries": st.integers(0, 500),
            "cache_hits": st.integers(0, 500),
            "gaps": st.lists(st.tuples(st.floats(0, 100), st.integers(1, 300)), max_size=4).map(tuple),
            "ttfts_s": st.lists(st.floats(0, 3000), max_size=4).map(tuple),
            "time_s": st.floats(0.001, 5),
            "predicted_s": st.none() | st.floats(0.001, 5),
        }
    ),
    max_size=4,
)


@settings(max_examples=25, deadline=None)
@given(STEPS)
def test_counts_and_sums_add_up(steps: list[dict[str, Any]]) -> None:
    scraped = Scraped()
    for number, each in enumerate(steps):
        scraped.client.say(step(Produced(key=number, token_ids=(1, 2)), **each))
    samples = scraped.samples()
    for name, key in (
        ("vllm:prompt_tokens_total", "prefill_tokens"),
        ("vllm:num_preemptions_total", "preemptions"),
        ("vllm:prefix_cache_queries_total", "cache_queries"),
        ("vllm:prefix_cache_hits_total", "cache_hits"),
    ):
        assert samples[name] == sum(each[key] for each in steps)
    assert samples["vllm:generation_tokens_total"] == 2 * len(steps)
    assert samples["vllm:iteration_tokens_total_sum"] == sum(each["prefill_tokens"] + each["decodes"] for each in steps)
    gaps = [gap for each in steps for gap in each["gaps"]]
    assert samples["vllm:inter_token_latency_seconds_count"] == sum(count for _, count in gaps)
    assert samples["vllm:inter_token_latency_seconds_sum"] == pytest.approx(sum(gap * count for gap, count in gaps))
    bound = NEXT_TOKEN_S[len(gaps)]
    within = scraped.samples(le=str(float(bound)), **OURS)["vllm:inter_token_latency_seconds_bucket"]
    assert within == sum(count for gap, count in gaps if gap <= bound)
    assert samples["vllm:time_to_first_token_seconds_count"] == sum(len(each["ttfts_s"]) for each in steps)
    predicted = [each for each in steps if each["predicted_s"] is not None]
    assert samples["charioteer:iteration_predicted_seconds_sum"] == pytest.approx(
        sum(each["predicted_s"] for each in predicted)
    )
    assert samples["charioteer:iteration_predicted_ratio_sum"] == pytest.approx(
        sum(each["predicted_s"] / each["time_s"] for each in predicted)
    )


def test_what_a_request_took_is_noted_when_it_ends() -> None:
    scraped = Scraped()
    scraped.client.say(step(ended(1, 10.0), ended(2, 10.0, finish="cancelled", started=False)))
    samples = scraped.samples()
    for name, count, total in (
        ("e2e_request_latency_seconds", 2, 8.0),
        ("request_queue_time_seconds", 1, 0.5),
        ("request_prefill_time_seconds", 1, 1.0),
        ("request_decode_time_seconds", 1, 2.5),
        ("request_inference_time_seconds", 1, 3.5),
        ("request_time_per_output_token_seconds", 1, 0.25),
        ("request_prompt_tokens", 2, 200.0),
        ("request_generation_tokens", 2, 11.0),
    ):
        assert (samples[f"vllm:{name}_count"], samples[f"vllm:{name}_sum"]) == (count, total)
    assert scraped.samples(finished_reason="length")["vllm:request_success_total"] == 1
    assert scraped.samples(finished_reason="stop")["vllm:request_success_total"] == 0


def test_failed_requests_are_counted() -> None:
    scraped = Scraped()
    assert scraped.samples(finished_reason="error")["vllm:request_success_total"] == 0
    scraped.client.say(Failed(keys=(3, 4), message="a fever"))
    assert scraped.samples(finished_reason="error")["vllm:request_success_total"] == 2
    assert scraped.samples(finished_reason="abort")["vllm:request_success_total"] == 0


def test_the_policy_is_the_one_that_rules_when_asked() -> None:
    scraped = Scraped()
    assert scraped.samples(policy="sarathi-serve") == {"charioteer:policy_info": 1}
    scraped.client.ready = ready("orca", predicted={"metrics": "a lot"})
    assert scraped.samples(policy="sarathi-serve") == {}
    assert scraped.samples(policy="orca", settings='{"max_num_seqs": 128}') == {"charioteer:policy_info": 1}


def test_buckets_of_lengths() -> None:
    assert lengths_up_to(100) == [1, 2, 5, 10, 20, 50, 100]
    assert lengths_up_to(4096)[-1] == 2000
