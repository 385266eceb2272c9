"""What the engine does, for Prometheus: by vLLM's names, so that dashboards made for it work, and our own beside."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import count
from math import isnan
from typing import Any

from fastapi import APIRouter, Response
from fastapi.params import Depends
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from engine.server.client import EngineClient, Watchable
from engine.server.messages import Failed, Finish, Idle, Produced, Served, Step
from engine.server.weighted_histogram import WeightedHistogram

FIRST_TOKEN_S = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
NEXT_TOKEN_S = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0),
)
REQUEST_S = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0),
    *(40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0),
)
BATCH_TOKENS = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
"""Those four, and :func:`lengths_up_to`, are vLLM's buckets."""
ITERATION_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
RATIO = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 1.0, 1.02, 1.05, 1.1, 1.2, 1.3, 1.5, 2.0, 3.0)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
REASONS: dict[Finish, str] = {"stop": "stop", "length": "length", "cancelled": "abort"}
FAILED = "error"
"""Why a request ended, and what vLLM calls it."""


def lengths_up_to(most: int) -> list[int]:
    """Return 1, 2, 5, 10, 20, 50 and so on, up to ``most``."""
    bounds: list[int] = []
    for exponent in count():
        for digit in (1, 2, 5):
            if digit * 10**exponent > most:
                return bounds
            bounds.append(digit * 10**exponent)
    raise AssertionError


class Metrics:
    """Follows an engine by what it says after every iteration.

    ``prompt_tokens`` counts those that ran through the model, once more where a preemption made them run again; what a
    request took is noted when it ends.

    Parameters
    ----------
    client
        The engine.
    model_name
        As clients call the model: the label ``model_name``.
    registry
        Where the metrics are announced.
    engine
        Which of the replicas it is: the label ``engine``.
    """

    def __init__(self, client: Watchable, *, model_name: str, registry: CollectorRegistry, engine: int = 0) -> None:
        ready = client.ready
        self._labels = {"model_name": model_name, "engine": str(engine)}
        self._registry = registry
        self._kv_blocks = ready.kv_blocks
        self._running = self._gauge("vllm:num_requests_running", "Requests that hold KV.")
        self._waiting = self._gauge("vllm:num_requests_waiting", "Requests that hold no KV.")
        self._kv_use = self._gauge("vllm:kv_cache_usage_perc", "Share of the KV blocks in use; 1 is all.")
        self._cache_queries = self._counter(
            "vllm:prefix_cache_queries", "Prompt tokens looked for in the prefix cache."
        )
        self._cache_hits = self._counter("vllm:prefix_cache_hits", "Prompt tokens found in the prefix cache.")
        self._preemptions = self._counter("vllm:num_preemptions", "Preemptions.")
        self._prompt_tokens = self._counter("vllm:prompt_tokens", "Prompt tokens that ran through the model.")
        self._generated = self._counter("vllm:generation_tokens", "Tokens generated.")
        names = [*self._labels, "finished_reason"]
        ended = Counter("vllm:request_success", "Requests that ended.", names, registry=registry)
        self._ended = {key: ended.labels(**self._labels, finished_reason=name) for key, name in REASONS.items()}
        self._failed = ended.labels(**self._labels, finished_reason=FAILED)
        self._batch_tokens = self._histogram("vllm:iteration_tokens_total", "Tokens of an iteration.", BATCH_TOKENS)
        self._ttft = self._histogram("vllm:time_to_first_token_seconds", "Time to first token.", FIRST_TOKEN_S)
        self._gaps = WeightedHistogram(
            "vllm:inter_token_latency_seconds", "Every time between two tokens.", self._labels, NEXT_TOKEN_S, registry
        )
        self._requests = _RequestTimes(self, ready.max_model_len)
        self._iteration = self._histogram("charioteer:iteration_seconds", "Time of an iteration.", ITERATION_S)
        self._predicted = self._histogram(
            "charioteer:iteration_predicted_seconds", "What the cost model says of it.", ITERATION_S
        )
        self._ratio = self._histogram(
            "charioteer:iteration_predicted_ratio", "Predicted over measured time of an iteration; 1 is right.", RATIO
        )
        registry.register(_PolicyInfo(client, self._labels))
        ProcessCollector(registry=registry)
        client.watch(self.take, self.take, self.fail)

    def _gauge(self, name: str, documentation: str) -> Gauge:
        return Gauge(name, documentation, list(self._labels), registry=self._registry).labels(**self._labels)

    def _counter(self, name: str, documentation: str) -> Counter:
        return Counter(name, documentation, list(self._labels), registry=self._registry).labels(**self._labels)

    def _histogram(self, name: str, documentation: str, buckets: Sequence[float]) -> Histogram:
        made = Histogram(name, documentation, list(self._labels), buckets=buckets, registry=self._registry)
        return made.labels(**self._labels)

    def take(self, event: Step | Idle) -> None:
        """Take note of an iteration, or of requests that left without one."""
        self._running.set(event.load.running)
        self._waiting.set(event.load.waiting)
        self._kv_use.set(event.load.blocks_used / self._kv_blocks)
        for each in event.produced:
            if each.finish is not None:
                self._end(each, each.finish)
        if isinstance(event, Step):
            self._iterate(event)

    def fail(self, event: Failed) -> None:
        """Take note of requests whose iteration failed."""
        self._failed.inc(len(event.keys))

    def _end(self, produced: Produced, finish: Finish) -> None:
        self._ended[finish].inc()
        if produced.served is not None:
            self._requests.take(produced.served)

    def _iterate(self, step: Step) -> None:
        self._cache_queries.inc(step.cache_queries)
        self._cache_hits.inc(step.cache_hits)
        self._preemptions.inc(step.preemptions)
        self._prompt_tokens.inc(step.prefill_tokens)
        self._generated.inc(sum([len(each.token_ids) for each in step.produced]))
        self._batch_tokens.observe(step.prefill_tokens + step.decodes)
        for ttft_s in step.ttfts_s:
            self._ttft.observe(ttft_s)
        for gap_s, times in step.gaps:
            self._gaps.observe(gap_s, times)
        time_s = step.end_s - step.start_s
        self._iteration.observe(time_s)
        if step.predicted_s is not None:
            self._predicted.observe(step.predicted_s)
            if time_s > 0:
                self._ratio.observe(step.predicted_s / time_s)


class _RequestTimes:
    """The histograms of what a request took, once it has ended."""

    def __init__(self, metrics: Metrics, max_model_len: int) -> None:
        make, lengths = metrics._histogram, lengths_up_to(max_model_len)
        self._prompt = make("vllm:request_prompt_tokens", "Prompt tokens of a request.", lengths)
        self._output = make("vllm:request_generation_tokens", "Tokens generated for a request.", lengths)
        self._whole = make("vllm:e2e_request_latency_seconds", "From arrival to the last token.", REQUEST_S)
        self._queue = make("vllm:request_queue_time_seconds", "From arrival to the first iteration.", REQUEST_S)
        self._prefill = make("vllm:request_prefill_time_seconds", "From there to the first token.", REQUEST_S)
        self._decode = make("vllm:request_decode_time_seconds", "From there to the last token.", REQUEST_S)
        self._inference = make(
            "vllm:request_inference_time_seconds", "From the first iteration to the last token.", REQUEST_S
        )
        self._per_token = make(
            "vllm:request_time_per_output_token_seconds", "Mean time between the tokens of a request.", NEXT_TOKEN_S
        )

    def take(self, served: Served) -> None:
        """Take note of a request that ended; of what never happened to it there is no time."""
        self._prompt.observe(served.prompt_tokens)
        self._output.observe(served.generated_tokens)
        self._whole.observe(served.finished_s - served.arrival_s)
        if isnan(served.scheduled_s):
            return
        self._queue.observe(served.scheduled_s - served.arrival_s)
        self._inference.observe(served.finished_s - served.scheduled_s)
        if isnan(served.first_token_s):
            return
        decode_s = served.finished_s - served.first_token_s
        self._prefill.observe(served.first_token_s - served.scheduled_s)
        self._decode.observe(decode_s)
        if served.generated_tokens > 1:
            self._per_token.observe(decode_s / (served.generated_tokens - 1))


class _PolicyInfo(Collector):
    """The policy that rules when somebody looks."""

    def __init__(self, client: Watchable, labels: dict[str, str]) -> None:
        self._client = client
        self._labels = labels

    def collect(self) -> Iterator[Metric]:
        """Yield its name, and its settings as JSON."""
        settings: dict[str, Any] = dict(self._client.ready.policy)
        settings.pop("predicted", None)
        said = {"policy": str(settings.pop("policy")), "settings": json.dumps(settings, sort_keys=True)}
        family = InfoMetricFamily("charioteer:policy", "The policy that rules.", labels=list(self._labels))
        family.add_metric(list(self._labels.values()), said)
        yield family


class _Several(Collector):
    """Registries that have metrics of the same names, as one."""

    def __init__(self, registries: Sequence[CollectorRegistry]) -> None:
        self._registries = registries

    def collect(self) -> Iterator[Metric]:
        """Yield each metric once, with the samples of all."""
        found: dict[str, Metric] = {}
        for registry in self._registries:
            for metric in registry.collect():
                if metric.name in found:
                    found[metric.name].samples.extend(metric.samples)
                else:
                    found[metric.name] = metric
        yield from found.values()


def registry_of(client: EngineClient, *, model_name: str) -> CollectorRegistry:
    """Return a registry with the metrics of each replica, and of the server's process."""
    registries = []
    for engine, replica in enumerate(client.replicas):
        own = CollectorRegistry()
        Metrics(replica, model_name=model_name, registry=own, engine=engine)
        registries.append(own)
    whole = CollectorRegistry()
    whole.register(_Several(registries))
    ProcessCollector(registry=whole)
    return whole


def metrics_router(registry: CollectorRegistry, *, dependencies: Sequence[Depends] = ()) -> APIRouter:
    """Return the route ``/metrics``; like vLLM's it takes no key, unless ``dependencies`` ask for one.

    Always in Prometheus' text format, whatever else is asked for: in OpenMetrics, prometheus_client 0.26 spells colons
    in names as underscores, and nobody would find ``vllm:`` there.
    """
    router = APIRouter(dependencies=list(dependencies))

    @router.get("/metrics", response_class=Response)
    def metrics() -> Response:
        """What the engine does, for Prometheus."""
        return Response(generate_latest(registry), headers={"Content-Type": CONTENT_TYPE})

    return router
