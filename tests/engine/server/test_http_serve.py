"""``python -m engine serve``: the real engine behind the real server, in processes of their own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import openai
import pytest

from engine.server.serve_options import check_installed
from engine.server.serving import ServeSettings, serve, stop_on_signals
from engine.session import EngineSettings
from tests.engine.server.http_double import FakeClient, wait_until
from traces.errors import InputError

CONFIG = {
    "model_type": "llama",
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "torch_dtype": "float32",
    "eos_token_id": None,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("tiny") / "config.json"
    file.write_text(json.dumps(CONFIG))
    return file


@contextmanager
def serving(model: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start the command; yield its process and its URL."""
    command = [sys.executable, "-m", "engine", "serve", "--model", str(model), "--load-format", "dummy", "--port", "0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CHARIOTEER_ADMIN_KEY": "admin"}
    process = subprocess.Popen(
        [*command, "--served-model-name", "tiny", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("Serving tiny at http://127.0.0.1:"), line + process.communicate()[1]
        yield process, line.split(" at ")[1].split(": ")[0]
    finally:
        process.kill()
        process.communicate()


def test_it_serves_and_drains(model: Path) -> None:
    with serving(model, "--api-key", "key") as (process, url):
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="key", max_retries=0)
        greedy = {"model": "tiny", "prompt": "Once upon a time", "max_tokens": 30, "temperature": 0}
        whole = client.completions.create(**greedy)
        stream = client.completions.create(**greedy, stream=True)
        assert "".join(chunk.choices[0].text for chunk in stream) == whole.choices[0].text
        assert whole.usage is not None
        assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (16, 30)
        drawn = client.completions.create(model="tiny", prompt="x", n=3, seed=7, max_tokens=20)
        again = client.completions.create(model="tiny", prompt="x", n=3, seed=7, max_tokens=20)
        assert [choice.text for choice in drawn.choices] == [choice.text for choice in again.choices]
        assert len({choice.text for choice in drawn.choices}) == 3
        stop = whole.choices[0].text[10:14]
        stopped = client.completions.create(**{**greedy, "stop": stop})
        assert stopped.choices[0].finish_reason == "stop"
        assert stopped.choices[0].text == whole.choices[0].text.partition(stop)[0]
        assert httpx.post(f"{url}/admin/policy", headers={"Authorization": "Bearer key"}).status_code == 401

        long = client.completions.create(model="tiny", prompt="x", max_tokens=1500, stream=True)
        first = next(iter(long))
        process.send_signal(signal.SIGTERM)
        wait_until(lambda: httpx.get(f"{url}/health").status_code == 503)
        with pytest.raises(openai.InternalServerError, match="draining"):
            client.completions.create(**greedy)
        rest = list(long)
        assert first.choices[0].finish_reason is None
        assert rest[-1].choices[0].finish_reason == "length"
        assert process.wait(timeout=60) == 0


class Ending(FakeClient):
    """Notes what becomes of it; it drains until it is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []
        self.closed = asyncio.Event()

    async def drain(self, timeout_s: float | None = None) -> None:
        self.told.append(f"drain within {timeout_s} s")
        await self.closed.wait()

    async def close(self) -> None:
        self.told.append("close")
        self.closed.set()


def test_the_first_signal_drains_and_the_second_drops() -> None:
    async def twice() -> list[str]:
        client = Ending()
        tasks = stop_on_signals(client, 5.0)
        os.kill(os.getpid(), signal.SIGTERM)
        while not client.told:
            await asyncio.sleep(0)
        assert not tasks[0].done()
        os.kill(os.getpid(), signal.SIGINT)
        await tasks[0]
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0)
        await asyncio.gather(*tasks)
        return client.told

    assert asyncio.run(twice()) == ["drain within 5.0 s", "close"]


def test_a_port_that_is_taken_is_said_before_anything_is_loaded(model: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"cannot listen at 127.0.0.1 port {port}: Address already in use"):
            serve(EngineSettings(model=str(model), load_format="dummy"), ServeSettings(port=port))


def test_times_that_are_none() -> None:
    for wrong in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="--drain-timeout"):
            ServeSettings(drain_timeout=wrong)


def test_what_is_not_installed_is_named() -> None:
    check_installed()
    with pytest.raises(InputError, match=r"no_such_library not installed; expected pip install 'charioteer\[serve\]'"):
        check_installed(("fastapi", "no_such_library"))
