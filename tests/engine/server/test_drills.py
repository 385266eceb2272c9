"""Drills with the real server: what is said of it when things go wrong under load holds."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from bench.serving.server import MODEL, engine_pid
from tests.engine.server.http_double import wait_until
from tests.engine.server.test_http_edges import POST, error_of
from tests.engine.server.test_http_serve import serving

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for processes in /proc")
LONG = 1500
OPTIONS = ("--num-gpu-blocks-override", "2048", "--max-num-seqs", "16")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("tiny") / "config.json"
    file.write_text(json.dumps(MODEL))
    return file


def body_of(max_tokens: int, **others: Any) -> dict[str, Any]:
    return {"prompt": "x" * 20, "max_tokens": max_tokens, "ignore_eos": True, "stream": True, **others}


async def told(url: str, max_tokens: int) -> list[str]:
    """Return the data of all events of a stream, which may break off: then ``broken`` is the last."""
    events = list[str]()
    try:
        async with (
            httpx.AsyncClient(timeout=60, limits=httpx.Limits(max_connections=None)) as client,
            client.stream("POST", f"{url}/v1/completions", json=body_of(max_tokens)) as answer,
        ):
            if answer.status_code != 200:
                return [str(answer.status_code)]
            events += [line[6:] async for line in answer.aiter_lines() if line.startswith("data: ")]
    except httpx.HTTPError:
        events.append("broken")
    return events


async def under_load(url: str, act: Any, *, clients: int = 24, max_tokens: int = 300) -> list[list[str]]:
    """Act amid streams; return what each was told."""
    before = metric(url, "vllm:generation_tokens_total")
    streams = [asyncio.create_task(told(url, max_tokens)) for _ in range(clients)]
    while metric(url, "vllm:generation_tokens_total") < before + 10 * clients:
        await asyncio.sleep(0.01)
    await asyncio.to_thread(act)
    return list(await asyncio.gather(*streams))


def metric(url: str, name: str) -> float:
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    return next(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"{name}{{"))


def ended_by(events: list[str]) -> str:
    """Return how a stream ended: its finish reason, or the type of the error that it told, or its HTTP status."""
    if events[-1] != "[DONE]":
        return events[-1]
    last = json.loads(events[-2])
    return str(last["error"]["type"] if "error" in last else last["choices"][0]["finish_reason"])


def test_an_engine_killed_under_load(model: Path) -> None:
    with serving(model, *OPTIONS) as (process, url):
        engine = engine_pid(process.pid)
        outcomes = asyncio.run(under_load(url, lambda: os.kill(engine, signal.SIGKILL), max_tokens=LONG))
        assert process.wait(timeout=30) == 1
        assert process.stderr is not None
        lines = process.stderr.read().splitlines()
    ends = {ended_by(events) for events in outcomes}
    assert "server_error" in ends
    assert ends <= {"server_error", "503"}
    assert [line.partition(" ERROR ")[2] for line in lines if "INFO" not in line] == [
        "the engine is down: the engine's process is gone (exit status -9)"
    ]


def test_a_hanging_engine_whose_server_is_stopped_twice(model: Path) -> None:
    with serving(model, *OPTIONS) as (process, url):
        engine = engine_pid(process.pid)

        def stop() -> None:
            os.kill(engine, signal.SIGSTOP)
            process.send_signal(signal.SIGTERM)
            wait_until(lambda: httpx.get(f"{url}/health").status_code == 503)
            process.send_signal(signal.SIGTERM)

        outcomes = asyncio.run(under_load(url, stop, max_tokens=LONG))
        assert process.wait(timeout=30) == 0
    assert {ended_by(events) for events in outcomes} <= {"server_error", "503"}
    assert not Path(f"/proc/{engine}").exists()


def test_slow_readers_then_a_hanging_engine_then_draining(model: Path) -> None:
    with serving(model, *OPTIONS, "--write-timeout", "1", "--stall-timeout", "1") as (process, url):
        readers_that_stop_are_dropped_and_hold_up_nobody(url)
        a_hanging_engine_is_said_to_and_is_well_again_when_it_moves(url, engine_pid(process.pid))
        outcomes = asyncio.run(under_load(url, lambda: process.send_signal(signal.SIGTERM)))
        assert process.wait(timeout=60) == 0
        assert process.stderr is not None
        lines = [line.split(" ", 2)[2] for line in process.stderr.read().splitlines()]
    assert {ended_by(events) for events in outcomes} == {"length"}
    assert lines == [
        "ERROR stalled: the engine has not finished an iteration for 1 s",
        "WARNING the engine goes on",
        "INFO draining: no new requests; a second signal drops what runs",
    ]


def readers_that_stop_are_dropped_and_hold_up_nobody(url: str) -> None:
    stuck = [stopped_reader(url) for _ in range(8)]
    try:
        outcomes = asyncio.run(under_load(url, lambda: None, clients=8, max_tokens=100))
        assert {ended_by(events) for events in outcomes} == {"length"}
        wait_until(lambda: metric(url, "vllm:num_requests_running") == 0)
        assert metric(url, "vllm:kv_cache_usage_perc") == 0
    finally:
        for connection in stuck:
            connection.close()


def a_hanging_engine_is_said_to_and_is_well_again_when_it_moves(url: str, engine: int) -> None:
    def hang() -> None:
        assert httpx.get(f"{url}/health").status_code == 200
        os.kill(engine, signal.SIGSTOP)
        wait_until(lambda: httpx.get(f"{url}/health").status_code == 503)
        refused = httpx.post(f"{url}/v1/completions", json={"prompt": "x"})
        assert refused.status_code == 503
        assert "has not finished an iteration for 1 s" in error_of(refused)["message"]
        os.kill(engine, signal.SIGCONT)
        wait_until(lambda: httpx.get(f"{url}/health").status_code == 200)

    outcomes = asyncio.run(under_load(url, hang))
    assert {ended_by(events) for events in outcomes} == {"length"}


def stopped_reader(url: str) -> socket.socket:
    """Ask for much, and read nothing of it."""
    parts = urlsplit(url)
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect((parts.hostname, parts.port))
    body = json.dumps(body_of(LONG, n=2, logprobs=5)).encode()
    connection.sendall(f"{POST}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return connection
