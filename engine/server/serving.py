"""What ``serve`` does: check, load, listen, and end in good order."""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from engine.server.admin import admin_router
from engine.server.app import build_app
from engine.server.blueprint import Blueprint
from engine.server.body import DEFAULT_MAX_BODY_BYTES
from engine.server.chat_template import read_template
from engine.server.client import EngineClient, EngineDownError
from engine.server.connection import connection_type
from engine.server.dashboard import Dashboard, dashboard_router
from engine.server.head import MOST_HEAD_BYTES
from engine.server.keys import BEARER, Door, doors, read_keys
from engine.server.limits import Limits
from engine.server.metrics import metrics_router, registry_of
from engine.server.process_client import ProcessClient
from engine.server.ray_cluster import Connected, connect, start_replicas
from engine.server.scale_out import ScaleOut
from engine.server.served_model import ServedModel
from engine.server.tokenizers import server_tokenizer
from engine.session import EngineSettings, policy_choice
from traces.errors import InputError
from traces.held_signals import STOPPING

log = logging.getLogger(__name__)

FLUSH_S = 5
"""How long answers that are complete may take to reach their clients once the engine has ended."""


@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """What a person asked of ``serve``; each field is the option of that name. Times in seconds.

    ``scale`` is what several options ask of a cluster; None for one engine, a process of the server's own.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    served_model_name: Sequence[str] = ()
    api_key: Sequence[str] = ()
    api_key_file: Path | None = None
    admin_key: Sequence[str] = ()
    admin_key_file: Path | None = None
    chat_template: Path | None = None
    max_queue: int = 1024
    max_body_bytes: int = DEFAULT_MAX_BODY_BYTES
    request_timeout: float = 600.0
    read_timeout: float = 60.0
    write_timeout: float = 60.0
    stall_timeout: float = 60.0
    drain_timeout: float = 60.0
    record: Path | None = None
    record_minutes: float = 60.0
    scale: ScaleOut | None = None

    def __post_init__(self) -> None:
        for name in ("request_timeout", "read_timeout", "write_timeout", "stall_timeout", "drain_timeout"):
            value = getattr(self, name)
            if not 0 < value < float("inf"):
                raise InputError(f"is {value}", where=f"--{name.replace('_', '-')}", expected="seconds, more than 0")
        if not self.record_minutes > 0:
            raise InputError(f"is {self.record_minutes}", where="--record-minutes", expected="a number > 0, or inf")

    def doors(self) -> dict[str, Door]:
        """Return what opens ``/v1`` and ``/admin``; InputError if a key is none."""
        api = read_keys(self.api_key, self.api_key_file, "CHARIOTEER_API_KEY", option="--api-key")
        admin = read_keys(self.admin_key, self.admin_key_file, "CHARIOTEER_ADMIN_KEY", option="--admin-key")
        return doors(api, admin)


class ListeningServer(uvicorn.Server):
    """A uvicorn that leaves signals alone and says when it listens."""

    def __init__(self, config: uvicorn.Config, on_listening: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_listening = on_listening

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen."""
        await super().startup(sockets)
        self._on_listening()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Whoever runs it decides what signals mean."""
        yield


def serve(settings: EngineSettings, asked: ServeSettings) -> int:
    """Serve until told to end; return the exit status: 0 then, 1 if the engine broke.

    The first SIGTERM or SIGINT drains: what runs is finished, nothing new is taken on. A second, or ``drain_timeout``,
    drops the rest.

    Raises
    ------
    InputError
        If anything asked for is wrong, or the port is taken.
    """
    blueprint = blueprint_of(settings, asked)
    guarded = asked.doors()
    template = read_template(asked.chat_template) if asked.chat_template else None
    with bound_socket(asked.host, asked.port) as listener:
        _log_to_stderr()
        if not guarded["/v1"].keys and not _is_local(listener):
            log.warning("anybody who reaches %s may use this server: it has no --api-key", asked.host)
        try:
            with _connected(asked.scale, settings) as connected:
                return asyncio.run(_serve(blueprint, asked, guarded, template, listener, connected))
        except EngineDownError as error:
            log.error("the engine did not start: %s", error)
            return 1


async def _serve(
    blueprint: Blueprint,
    asked: ServeSettings,
    guarded: dict[str, Door],
    template: str | None,
    listener: socket.socket,
    connected: Connected | None,
) -> int:
    client = await start_client(blueprint, asked, connected)
    served = served_model(client, blueprint.settings.model, asked, template)
    dashboard = Dashboard(client, model_name=served.names[0])
    app = routes(served, asked, guarded, dashboard)
    server = ListeningServer(_config(app, asked), lambda: print(_greeting(served, listener), flush=True))
    stopping = stop_on_signals(client, asked.drain_timeout)
    with collections_without_what_stays():
        running = asyncio.create_task(server.serve(sockets=[listener]))
        why = await client.ended()
        server.should_exit = True
        await running
    dashboard.close()
    await asyncio.gather(*stopping)
    return 0 if why is None else 1


@contextmanager
def collections_without_what_stays() -> Iterator[None]:
    """Let garbage collections pass over what is there now, which holds up the event loop for a second with libraries as
    large as these; in the end all is as it was, since some of them complain of what outlives them."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextmanager
def _connected(scale: ScaleOut | None, settings: EngineSettings) -> Iterator[Connected | None]:
    """Be connected to Ray, where several engines are asked for."""
    if scale is None:
        yield None
        return
    connected = connect(scale, settings)
    try:
        yield connected
    finally:
        connected.ray.shutdown()


async def start_client(blueprint: Blueprint, asked: ServeSettings, connected: Connected | None) -> EngineClient:
    """Start one engine in a process of its own, or several as Ray's actors.

    Raises
    ------
    InputError
        If there is no engine as asked for.
    EngineDownError
        If it broke.
    """
    if asked.scale is None or connected is None:
        return await ProcessClient.start(blueprint, limits_of(asked))
    return await start_replicas(connected, blueprint, asked.scale, limits_of(asked))


def blueprint_of(settings: EngineSettings, asked: ServeSettings) -> Blueprint:
    """Return how each engine is built; InputError if there is no such policy."""
    return Blueprint(
        settings=settings,
        choice=policy_choice(settings),
        tokenizer=server_tokenizer,
        record=asked.record,
        record_s=60 * asked.record_minutes,
    )


def limits_of(asked: ServeSettings) -> Limits:
    """Return what the server takes on."""
    return Limits(
        max_queue=asked.max_queue, request_timeout_s=asked.request_timeout, stall_timeout_s=asked.stall_timeout
    )


def served_model(client: EngineClient, model: str, asked: ServeSettings, template: str | None) -> ServedModel:
    """Return the model by the names that requests may call it."""
    names = asked.served_model_name or (model,)
    return ServedModel(client, names=names, tokenizer=server_tokenizer(model), template=template)


def routes(served: ServedModel, asked: ServeSettings, guarded: dict[str, Door], dashboard: Dashboard) -> FastAPI:
    """Return all routes: OpenAI's, and beside them metrics, the ruling policy, the dashboard."""
    registry = registry_of(served.client, model_name=served.names[0])
    admin = admin_router(served.client, dependencies=[BEARER])
    routers = (metrics_router(registry), admin, dashboard_router(dashboard))
    return build_app(served, guarded=guarded, max_body_bytes=asked.max_body_bytes, routers=routers)


def _config(app: FastAPI, asked: ServeSettings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=connection_type(write_timeout_s=asked.write_timeout, read_timeout_s=asked.read_timeout),
        h11_max_incomplete_event_size=MOST_HEAD_BYTES,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="critical",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=FLUSH_S,
    )


def stop_on_signals(client: EngineClient, drain_timeout_s: float) -> list[asyncio.Task[None]]:
    """Let the first signal drain, and the second drop; return the tasks that do, as they come to be."""
    tasks: list[asyncio.Task[None]] = []

    def stop() -> None:
        if not tasks:
            log.info("draining: no new requests; a second signal drops what runs")
            tasks.append(asyncio.create_task(client.drain(drain_timeout_s)))
        elif len(tasks) == 1:
            tasks.append(asyncio.create_task(client.close()))

    for number in STOPPING:
        asyncio.get_running_loop().add_signal_handler(number, stop)
    return tasks


def bound_socket(host: str, port: int) -> socket.socket:
    """Return a socket bound to an address, not yet listening; InputError if that cannot be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
        except OSError:
            bound.close()
            raise
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        what = f"cannot listen at {host} port {port}: {why}"
        raise InputError(
            what, where="--host, --port", expected="an address of this machine, and a free port"
        ) from error
    return bound


def _is_local(listener: socket.socket) -> bool:
    return ip_address(listener.getsockname()[0].partition("%")[0]).is_loopback


def _greeting(served: ServedModel, listener: socket.socket) -> str:
    """Return the line that says where what is served, and how."""
    ready, (host, port) = served.client.ready, listener.getsockname()[:2]
    at = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    replicas = len(served.client.replicas)
    memory = f"{ready.kv_blocks} KV blocks of {ready.block_size} tokens" + (" each" if replicas > 1 else "")
    times = f"{replicas} x " if replicas > 1 else ""
    return (
        f"Serving {', '.join(served.names)} at {at}: {times}{ready.policy['policy']}, {memory}, "
        f"context {ready.max_model_len}"
    )


def _log_to_stderr() -> None:
    """Let what the server logs be lines on standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("engine.server")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
