"""The application of Ray Serve, with a double of the engines."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from starlette.testclient import TestClient  # noqa: E402

from engine.server import ray_app  # noqa: E402
from engine.server.blueprint import Blueprint  # noqa: E402
from engine.server.client import EngineDownError  # noqa: E402
from engine.server.ray_app import ServedApplication, application  # noqa: E402
from engine.server.serve_options import parsed  # noqa: E402
from tests.engine.server.watched import Watched, ready  # noqa: E402
from traces.errors import InputError  # noqa: E402

ARGUMENTS = {"model": "llama-60m", "load_format": "dummy", "replicas": "2", "served_model_name": "tiny"}


class Ending(Watched):
    drained_s: float | None = None

    async def drain(self, timeout_s: float | None = None) -> None:
        self.drained_s = timeout_s


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> ServedApplication:
    monkeypatch.setattr(ray_app, "joined", lambda: None)
    settings, asked = parsed({**ARGUMENTS, "drain_timeout": 3, "record": "served", "record_minutes": 5})
    return ServedApplication(settings, asked, asked.doors(), None)


def test_it_starts_and_drains(made: ServedApplication, monkeypatch: pytest.MonkeyPatch) -> None:
    engines = Ending(ready())

    async def start(connected: object, blueprint: Blueprint, scale: object, limits: object) -> Ending:
        assert (blueprint.record, blueprint.record_s) == (Path("served"), 300)
        return engines

    monkeypatch.setattr(ray_app, "start_replicas", start)
    with TestClient(made) as http:
        assert http.get("/v1/models").json()["data"][0]["id"] == "tiny"
        assert http.get("/health").status_code == 200
        assert engines.drained_s is None
    assert engines.drained_s == 3


def test_engines_that_do_not_start(made: ServedApplication, monkeypatch: pytest.MonkeyPatch) -> None:
    async def start(*_: object) -> None:
        raise EngineDownError("out of memory")

    monkeypatch.setattr(ray_app, "start_replicas", start)
    said: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "lifespan.startup"}

    async def send(message: MutableMapping[str, Any]) -> None:
        said.append(message)

    asyncio.run(asyncio.wait_for(made({"type": "lifespan"}, receive, send), 10))
    assert said == [{"type": "lifespan.startup.failed", "message": "out of memory"}]


def test_arguments() -> None:
    pytest.importorskip("ray.serve", reason="the application needs the extra [ray]")
    assert application(ARGUMENTS) is not None
    for wrong, says in (({"port": 80}, "port is for Ray Serve"), ({"colour": "red"}, "--colour")):
        with pytest.raises(InputError, match=says):
            application({**ARGUMENTS, **wrong})
