"""The whole loop by its commands: measure, search, serve what won, load it, and compare with what was predicted."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

pytest.importorskip("torch", reason="the engine needs torch")
pytest.importorskip("fastapi", reason="the server needs the extra [serve]")

from engine.__main__ import app as engine
from simulator.__main__ import app as simulator
from tests.engine.server.test_http_serve import CONFIG, serving
from traces.demand import Drawn

CONTEXT = 96
FACTOR = 100.0
"""By how much a machine that others use may be off its pace; what is told are units and meanings that do not agree."""


@dataclass(frozen=True)
class Measured:
    """Seconds of one request, by the client's clock."""

    ttft_s: float
    gaps_s: list[float]
    tokens: int


def command(app: Any, *arguments: str | Path) -> None:
    with pytest.raises(SystemExit) as ended:
        app(args=[str(argument) for argument in arguments])
    assert not ended.value.code


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The policy.json of a search on what was measured here."""
    folder = tmp_path_factory.mktemp("loop")
    model = folder / "config.json"
    model.write_text(json.dumps(CONFIG))
    limits = ("--max-num-seqs", "4", "--max-model-len", CONTEXT)
    most = ("--max-num-batched-tokens", "64")
    command(
        engine, "profile", "--model", model, *map(str, limits), *most, "--budget", "1.5", "--output", folder / "mine"
    )
    asked = ("--workload", "chat", "--num-prompts", "12", "--length-scale", "0.01", "--model", model, *map(str, limits))
    hardware = ("--devices", "cpu", "--profile", folder / "mine", "-tp", "1", "-pp", "1", "--replicas", "1")
    tried = ("--policies", "sarathi-serve", "--max-num-batched-tokens", "32,64", "--slo", "tbt:500")
    command(simulator, "search", *asked, *hardware, *tried, "--objective", "capacity", "--output", folder / "found")
    return folder / "found" / "policy.json"


async def ask(client: httpx.AsyncClient, url: str, due_s: float, prompt: list[int], tokens: int) -> Measured:
    """Send a request when it is due; return when what came."""
    await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
    body = {"prompt": prompt, "max_tokens": tokens, "ignore_eos": True, "stream": True}
    times_s = [time.perf_counter()]
    async with client.stream("POST", f"{url}/v1/completions", json={**body, "logprobs": 0}) as answer:
        assert answer.status_code == 200
        count = 0
        async for line in answer.aiter_lines():
            if line.startswith("data: {"):
                times_s.append(time.perf_counter())
                count += len(json.loads(line[6:])["choices"][0]["logprobs"]["tokens"])
    first, *later = [after - before for before, after in pairwise(times_s)]
    return Measured(first, later, count)


async def load(url: str, drawn: Drawn) -> list[Measured]:
    workload = drawn.workload()
    generator = np.random.default_rng(drawn.seed)
    begin_s = time.perf_counter()
    async with httpx.AsyncClient(timeout=60, limits=httpx.Limits(max_connections=None)) as client:
        requests = zip(workload.arrival_s, workload.prompt_tokens, workload.output_tokens, strict=True)
        return await asyncio.gather(
            *(
                ask(client, url, begin_s + float(at_s), generator.integers(256, size=prompt).tolist(), int(output))
                for at_s, prompt, output in requests
            )
        )


def test_what_won_the_search_serves_what_was_predicted(policy: Path) -> None:
    predicted = json.loads(policy.read_text())["predicted"]
    drawn = Drawn.from_dict(predicted["workload"], where=policy)
    deployment = predicted["deployment"]
    with serving(Path(deployment["model"]), "--policy", str(policy), "--max-model-len", str(CONTEXT)) as (_, url):
        ruling = httpx.get(f"{url}/metrics").text
        measured = asyncio.run(load(url, drawn))
        metrics = httpx.get(f"{url}/metrics").text
    assert 'policy="sarathi-serve"' in ruling
    outputs = drawn.workload().output_tokens
    assert [each.tokens for each in measured] == outputs.tolist()
    lines = dict(line.rsplit(" ", 1) for line in metrics.splitlines() if not line.startswith("#"))
    sums = {name.partition("{")[0]: float(value) for name, value in lines.items()}
    assert sums["vllm:generation_tokens_total"] == outputs.sum()
    assert sums["charioteer:iteration_predicted_seconds_count"] == sums["charioteer:iteration_seconds_count"] > 0

    by_clients = {
        "TTFT P50": [each.ttft_s for each in measured],
        "TBT P50": [gap_s for each in measured for gap_s in each.gaps_s],
    }
    by_server = {
        "TTFT MEAN": sums["vllm:time_to_first_token_seconds_sum"] / sums["vllm:time_to_first_token_seconds_count"],
        "TBT MEAN": sums["vllm:inter_token_latency_seconds_sum"] / sums["vllm:inter_token_latency_seconds_count"],
    }
    found = {name: float(np.median(values)) for name, values in by_clients.items()} | by_server
    for name, seconds in found.items():
        foretold = predicted["metrics"][name]["value"]
        print(f"{name}: measured {1e3 * seconds:.2f} ms, predicted {1e3 * foretold:.2f} ms")
        assert foretold / FACTOR < seconds < foretold * FACTOR, name
