"""A page that shows what the engine does now, beside what was predicted of it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import EntryPoint
from importlib.resources import files
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Query, Response
from fastapi.params import Depends

from engine.server.client import EngineClient
from engine.server.forecast import Ended, Engine, ForecastProcess, simulator, workload_of
from engine.server.history import MINUTES, History
from policies.blocks import KVMemory
from policies.catalog import policy_of
from traces.errors import InputError

EVERY_S = 15.0
"""Between the end of one simulation of the load and the next."""
RECENT_S = 120.0
"""Requests are simulated that ended so recently."""
FEWEST = 8
"""Requests that make a load."""
MOST_FORECASTS = 256
FORETOLD = {
    "ttft_p50_s": "TTFT P50",
    "ttft_p99_s": "TTFT P99",
    "tbt_p50_s": "TBT P50",
    "tbt_p99_s": "TBT P99",
    "output_tokens": "Output tokens/s",
    "requests": "Requests/s",
}
"""What the page shows of a forecast, or of a policy.json, and the metric's name there."""
CONTENT_SECURITY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; connect-src 'self'; "
    "img-src data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
PAGE = {
    "": ("dashboard.html", "text/html"),
    "/dashboard.js": ("dashboard.js", "text/javascript"),
    "/dashboard.css": ("dashboard.css", "text/css"),
}


class Dashboard:
    """Keeps the last minutes of an engine, and has its load simulated while somebody looks.

    Parameters
    ----------
    client
        The engine.
    model_name
        As clients call the model.
    where
        A simulator; by default the one that is installed.

    Attributes
    ----------
    forecasts
        (time, metrics by the keys of :data:`FORETOLD`, requests) of the latest simulations.
    """

    def __init__(self, client: EngineClient, *, model_name: str, where: EntryPoint | None = None) -> None:
        self._client = client
        self._model_name = model_name
        self._history = History(client)
        self._process = self._forecasting(where or simulator())
        self._status = "" if self._process else self._why_none(where or simulator(), len(client.replicas))
        self._task: asyncio.Task[None] | None = None
        self._next_s = 0.0
        self._simulated: dict[str, Any] = {}
        self.forecasts: list[dict[str, Any]] = []

    def _forecasting(self, where: EntryPoint | None) -> ForecastProcess | None:
        ready = self._client.ready
        if where is None or ready.deployment is None or len(self._client.replicas) > 1:
            return None
        memory = KVMemory(blocks=ready.kv_blocks, block_size=ready.block_size, max_model_len=ready.max_model_len)
        profile = None if ready.profile is None else Path(ready.profile)
        return ForecastProcess(where, Engine(deployment=ready.deployment, memory=memory, profile=profile))

    @staticmethod
    def _why_none(where: EntryPoint | None, replicas: int) -> str:
        if replicas > 1:
            return "What several replicas do together is not simulated here: ask python -m simulator run --cluster."
        if where is None:
            return "No simulator is installed, so the load is not simulated."
        return "Nothing is known of this device's speed, so the load is not simulated: start with --profile."

    def close(self) -> None:
        """Simulate nothing any more."""
        if self._task is not None:
            self._task.cancel()
        if self._process is not None:
            self._process.close()

    # --- what the page asks for ---

    def data(self, since_s: float) -> dict[str, Any]:
        """Return what there is, of the seconds those after ``since_s``; see to it that the load is simulated."""
        now_s = time.perf_counter()
        self._history.advance(now_s)
        self._simulate(now_s)
        policy = self._client.ready.policy
        return {
            "time_s": time.time(),
            "minutes": MINUTES,
            "model": self._model_name,
            "policy": _settings(policy),
            "unhealthy": self._client.unhealthy,
            "swaps": [{"time_s": when, "policy": _settings(each)} for when, each in self._history.swaps],
            "seconds": self._history.since(since_s),
            "forecasts": self.forecasts,
            "status": self._status,
            "searched": _searched(policy),
        }

    def _simulate(self, now_s: float) -> None:
        """Begin a simulation where it is time for one and there is load."""
        policy = self._client.ready.policy
        due = now_s >= self._next_s or policy != self._simulated
        if self._process is None or self._task is not None or not due:
            return
        recent = [each for each in self._history.ended if each.ended_s > now_s - RECENT_S]
        if len(recent) < FEWEST:
            self._status = f"The load is simulated once {FEWEST} requests have ended within {RECENT_S:g} s."
            return
        self._simulated = policy
        self._task = asyncio.get_running_loop().create_task(self._forecast(self._process, policy, recent))

    async def _forecast(self, process: ForecastProcess, policy: dict[str, Any], requests: list[Ended]) -> None:
        try:
            workload = await asyncio.to_thread(workload_of, requests, self._client.ready.block_size)
            metrics = await process.ask(policy_of(policy, where="the policy"), workload)
        except InputError as error:
            self._status = f"The load is not simulated: {error}."
        else:
            said = {key: metrics[name] for key, name in FORETOLD.items() if name in metrics}
            self.forecasts.append({"time_s": time.time(), "requests_simulated": len(requests), **said})
            del self.forecasts[:-MOST_FORECASTS]
            self._status = ""
        finally:
            self._task = None
            self._next_s = time.perf_counter() + EVERY_S


def _settings(policy: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in policy.items() if key != "predicted"}


def _searched(policy: Mapping[str, Any]) -> dict[str, float]:
    """Return what a search predicted of the policy, for the load that it was told of."""
    metrics = policy.get("predicted", {}).get("metrics", {})
    return {key: metrics[name]["value"] for key, name in FORETOLD.items() if name in metrics}


def dashboard_router(dashboard: Dashboard, *, dependencies: Sequence[Depends] = ()) -> APIRouter:
    """Return the routes of ``/dashboard``.

    The page and its scripts hold nothing of the engine and are free to all. What it shows comes from
    ``/dashboard/data``, for which it sends a key where the server asks for one: ``dependencies`` see to that.
    """
    router = APIRouter(prefix="/dashboard", include_in_schema=False)

    @router.get("/data", dependencies=list(dependencies))
    async def data(since_s: float = Query(default=0.0, allow_inf_nan=False)) -> Response:
        content = json.dumps(dashboard.data(since_s), allow_nan=False)
        return Response(content, media_type="application/json", headers={"Cache-Control": "no-store"})

    @router.get("/plotly.js")
    def plotly() -> Response:
        return Response(_plotly(), media_type="text/javascript", headers={**HEADERS, "Cache-Control": "max-age=86400"})

    for path, (name, kind) in PAGE.items():
        content = (files("engine.server") / "page" / name).read_bytes()
        router.add_api_route(path, _served(content, kind), methods=["GET"])
    return router


def _served(content: bytes, kind: str) -> Any:
    async def page() -> Response:
        return Response(content, media_type=kind, headers={**HEADERS, "Cache-Control": "no-cache"})

    return page


@cache
def _plotly() -> bytes:
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs()).encode()
