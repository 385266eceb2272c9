"""Engine processes that fail, are killed, or are left alone."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from engine.engine import Engine  # noqa: E402
from engine.sampling import SamplingParams  # noqa: E402
from engine.server.blueprint import Blueprint  # noqa: E402
from engine.server.client import EngineDownError, IterationError  # noqa: E402
from engine.server.process_client import ProcessClient  # noqa: E402
from engine.session import EngineSettings  # noqa: E402
from policies import choose  # noqa: E402

ROOT = Path(__file__).resolve().parents[3]
PROMPT, POISON = list(range(30, 46)), 29
LONG = SamplingParams(max_tokens=200, temperature=0)
SHORT = SamplingParams(max_tokens=8, temperature=0)


@dataclass(frozen=True, kw_only=True)
class Fragile(Blueprint):
    """An engine that fails in every batch with a certain token, and takes its time."""

    def build(self) -> Engine:
        engine = super().build()
        forward = engine.runner.forward

        def failing(inputs: Any) -> Any:
            time.sleep(0.005)
            if POISON in inputs.token_ids_t.tolist():
                raise RuntimeError("not enough memory: you tried to allocate too much")
            return forward(inputs)

        engine.runner.forward = failing  # type: ignore[method-assign]
        return engine


def fragile(folder: Path) -> Fragile:
    settings = EngineSettings(model=str(folder), max_model_len=256, block_size=4, num_gpu_blocks_override=128)
    return Fragile(settings=settings, choice=choose("vllm", max_num_seqs=2))


def run(scene: Callable[[], Any]) -> Any:
    return asyncio.run(asyncio.wait_for(scene(), 90))


def test_failing_iterations_and_the_end_of_an_engine(tiny_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scene() -> None:
        client = await ProcessClient.start(fragile(tiny_folder))
        good = await client.submit(PROMPT, SHORT)[0].whole()
        for _ in range(4):
            (bad,) = client.submit([*PROMPT, POISON], SHORT)
            with pytest.raises(IterationError, match="the model failed: RuntimeError: not enough memory"):
                await bad.whole()
            assert (await client.submit(PROMPT, SHORT)[0].whole()).token_ids == good.token_ids
        assert client.unhealthy is None
        worse = [*client.submit([*PROMPT, POISON], SHORT, count=8), *client.submit(PROMPT, LONG, count=4)]
        outcomes = await asyncio.gather(*(stream.whole() for stream in worse), return_exceptions=True)
        assert {type(each) for each in outcomes} == {IterationError, EngineDownError}
        why = await client.ended()
        assert why is not None
        assert why.startswith("3 iterations in a row failed; the last: the model failed: RuntimeError")
        assert why.endswith("(exit status 1)")
        assert client.unhealthy == why
        with pytest.raises(EngineDownError, match="3 iterations"):
            client.submit(PROMPT, SHORT)
        with pytest.raises(EngineDownError, match="3 iterations"):
            await client.swap({"policy": "orca"})

    with caplog.at_level(logging.ERROR, logger="engine.server"):
        run(scene)
    (line,) = caplog.messages
    assert line.startswith("the engine is down: 3 iterations in a row failed")


def test_an_engine_that_is_killed_ends_everything_at_once(tiny_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scene() -> None:
        client = await ProcessClient.start(fragile(tiny_folder))
        streams = client.submit(PROMPT, LONG, count=6)
        await anext(aiter(streams[0]))
        os.kill(client.pid, signal.SIGKILL)
        outcomes = await asyncio.gather(*(stream.whole() for stream in streams), return_exceptions=True)
        assert {type(each) for each in outcomes} == {EngineDownError}
        assert client.unhealthy is not None
        assert await client.ended() == "the engine's process is gone (exit status -9)"
        await client.drain()
        await client.close()

    with caplog.at_level(logging.ERROR, logger="engine.server"):
        run(scene)
    assert caplog.messages == ["the engine is down: the engine's process is gone (exit status -9)"]


def test_signals_are_the_servers_business_and_draining_finishes_what_runs(tiny_folder: Path) -> None:
    async def scene() -> None:
        client = await ProcessClient.start(fragile(tiny_folder))
        streams = client.submit(PROMPT, SamplingParams(max_tokens=40, temperature=0), count=3)
        await anext(aiter(streams[0]))
        for each in (signal.SIGINT, signal.SIGTERM):
            os.kill(client.pid, each)
        draining = asyncio.create_task(client.drain())
        await asyncio.sleep(0)
        assert client.unhealthy == "the server is draining"
        with pytest.raises(EngineDownError, match="the server is draining"):
            client.submit(PROMPT, SHORT)
        wholes = await asyncio.gather(*(stream.whole() for stream in streams[1:]))
        assert [len(each.token_ids) for each in wholes] == [40, 40]
        await draining
        assert await client.ended() is None
        assert client.unhealthy == "the server is draining"

    run(scene)


SERVER = """
import asyncio, sys
from engine.sampling import SamplingParams
from engine.server.blueprint import Blueprint
from engine.server.process_client import ProcessClient
from engine.session import EngineSettings
from policies import choose

async def main():
    settings = EngineSettings(model=sys.argv[1], max_model_len=256, num_gpu_blocks_override=64)
    client = await ProcessClient.start(Blueprint(settings=settings, choice=choose("vllm")))
    print(client.pid, flush=True)
    while True:
        streams = client.submit([1, 2, 3], SamplingParams(max_tokens=200), count=4)
        await asyncio.gather(*(stream.whole() for stream in streams))

if __name__ == "__main__":
    asyncio.run(main())
"""


def alive(pid: int) -> bool:
    """Whether a process is there that has not ended."""
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_no_engine_outlives_its_server(tiny_folder: Path, tmp_path: Path) -> None:
    script = tmp_path / "server.py"
    script.write_text(SERVER)
    server = subprocess.Popen(
        [sys.executable, str(script), str(tiny_folder)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    with server:
        assert server.stdout is not None
        pid = int(server.stdout.readline())
        assert alive(pid)
        server.kill()
    for _ in range(600):
        if not alive(pid):
            return
        time.sleep(0.05)
    pytest.fail("the engine's process is still there")
