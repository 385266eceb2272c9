"""A real engine in a process of its own, its policy swapped while it serves, its metrics and its page."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from fastapi import FastAPI
from fastapi.testclient import TestClient
from prometheus_client import CollectorRegistry

from engine.sampling import SamplingParams
from engine.server.blueprint import Blueprint
from engine.server.client import UnservableError
from engine.server.dashboard import Dashboard
from engine.server.limits import Limits
from engine.server.metrics import Metrics, metrics_router
from engine.server.process_client import ProcessClient
from engine.session import EngineSettings
from policies import POLICIES, choose

PARAMS = SamplingParams(max_tokens=40, temperature=0)
PROMPTS = [[*range(30, 42), number, *range(50, 50 + 5 * number)] for number in range(6)]


async def tokens(stream: Any) -> list[int]:
    return [token async for produced in stream for token in produced.token_ids]


async def serve(folder: Path) -> tuple[list[list[int]], list[list[int]], str, dict[str, Any]]:
    """The tokens without a swap and with many; metrics and the page's data after that."""
    settings = EngineSettings(model=str(folder), max_model_len=256, block_size=4, num_gpu_blocks_override=256)
    plan = Blueprint(settings=settings, choice=choose("sarathi-serve", max_num_batched_tokens=16))
    client = await ProcessClient.start(plan, Limits())
    try:
        registry = CollectorRegistry()
        Metrics(client, model_name="tiny", registry=registry)
        dashboard = Dashboard(client, model_name="tiny")
        plain = await asyncio.gather(*(tokens(client.submit(prompt, PARAMS)[0]) for prompt in PROMPTS))
        running = [asyncio.create_task(tokens(client.submit(prompt, PARAMS)[0])) for prompt in PROMPTS]
        for name in POLICIES:
            if name != "slack":
                await asyncio.sleep(0.01)
                assert (await client.swap({"policy": name, "max_num_seqs": 4}))["policy"] == name
        with pytest.raises(UnservableError, match="policy slack: chooses its batches by a cost model"):
            await client.swap({"policy": "slack"})
        swapped = await asyncio.gather(*running)
        app = FastAPI()
        app.include_router(metrics_router(registry))
        data = dashboard.data(0.0)
        dashboard.close()
        return plain, swapped, TestClient(app).get("/metrics").text, data
    finally:
        await client.close()


def test_swaps_while_requests_stream_change_no_token(tiny_folder: Path) -> None:
    plain, swapped, metrics, data = asyncio.run(asyncio.wait_for(serve(tiny_folder), 60))
    assert [len(each) for each in plain] == [40] * 6
    assert swapped == plain
    said = dict(line.rsplit(" ", 1) for line in metrics.splitlines() if not line.startswith("#"))
    labels = 'engine="0",model_name="tiny"'
    assert float(said['vllm:request_success_total{engine="0",finished_reason="length",model_name="tiny"}']) == 12
    assert float(said[f"vllm:generation_tokens_total{{{labels}}}"]) == 12 * 40
    assert float(said[f"vllm:time_to_first_token_seconds_count{{{labels}}}"]) == 12
    assert float(said[f"vllm:inter_token_latency_seconds_count{{{labels}}}"]) == 12 * 39
    assert 'policy="vllm-v1"' in metrics
    assert data["policy"]["policy"] == "vllm-v1"
    assert len(data["swaps"]) >= 2
    assert "start with --profile" in data["status"] or "No simulator" in data["status"]
