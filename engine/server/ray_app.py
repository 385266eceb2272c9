"""The server as an application of Ray Serve: ``serve run engine.server.ray_app:application model=... replicas=2``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import replace
from typing import Any

from engine.server.chat_template import read_template
from engine.server.client import EngineClient, ServerError
from engine.server.dashboard import Dashboard
from engine.server.keys import Door
from engine.server.ray_cluster import INSTALL, joined, start_replicas
from engine.server.scale_out import ScaleOut
from engine.server.serve_options import parsed
from engine.server.serving import ServeSettings, blueprint_of, limits_of, routes, served_model
from engine.session import EngineSettings
from traces.errors import InputError

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

SERVES_OWN = ("host", "port", "read_timeout", "write_timeout", "ray_address")
"""What Ray Serve decides."""
UNBOUNDED = 1_000_000
"""Requests that Serve lets through at once: how many there may be is the business of ``max_queue``."""


class ServedApplication:
    """An ASGI application that starts its engines when it starts, and drains them when it ends."""

    def __init__(
        self, settings: EngineSettings, asked: ServeSettings, guarded: dict[str, Door], template: str | None
    ) -> None:
        self._blueprint = blueprint_of(settings, asked)
        self._asked, self._guarded, self._template = asked, guarded, template
        self._routes: Any = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or live from the application's start to its end."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        else:
            await self._routes(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            scale = self._asked.scale or ScaleOut()
            client: EngineClient = await start_replicas(joined(), self._blueprint, scale, limits_of(self._asked))
        except (InputError, ServerError) as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        served = served_model(client, self._blueprint.settings.model, self._asked, self._template)
        dashboard = Dashboard(client, model_name=served.names[0])
        self._routes = routes(served, self._asked, self._guarded, dashboard)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await client.drain(self._asked.drain_timeout)
        dashboard.close()
        await send({"type": "lifespan.shutdown.complete"})


def application(arguments: Mapping[str, Any]) -> Any:
    """Return an application for ``serve run`` or a Serve config file.

    One ingress replica answers HTTP and holds the router; the engines are actors that it owns, since Serve would choose
    among replicas of its own by a rule of its own. Where it is lost, Serve starts it again, and with it all engines.

    Parameters
    ----------
    arguments
        The options of ``python -m engine serve`` by name (``model``, ``policy``, ``replicas``, ``router``,
        ``served_model_name`` and so on), those apart that Serve has of its own: host and port.

    Raises
    ------
    InputError
        If one is unknown or wrong, or Ray Serve is not installed.
    """
    try:
        from ray import serve
    except ImportError as error:
        raise InputError("Ray Serve is not installed", expected=INSTALL) from error
    for name in SERVES_OWN:
        if name in arguments or name.replace("_", "-") in arguments:
            raise InputError(f"{name} is for Ray Serve to say", where="arguments", expected="serve's own options")
    settings, asked = parsed(arguments)
    guarded = asked.doors()
    template = read_template(asked.chat_template) if asked.chat_template else None
    asked = replace(asked, api_key=(), api_key_file=None, admin_key=(), admin_key_file=None)

    def build() -> ServedApplication:
        return ServedApplication(settings, asked, guarded, template)

    ingress: Any = serve.ingress(build)
    deployment: Any = serve.deployment(
        name="charioteer",
        max_ongoing_requests=UNBOUNDED,
        ray_actor_options={"num_cpus": 0},
        graceful_shutdown_timeout_s=asked.drain_timeout,
    )
    return deployment(ingress()).bind()
