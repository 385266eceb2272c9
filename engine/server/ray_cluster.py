"""Engines that Ray places on the machines of a cluster, one a replica."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from dataclasses import dataclass
from typing import Any

from engine.server.blueprint import Blueprint
from engine.server.client import EngineDownError, ServerError
from engine.server.cluster_client import ClusterClient
from engine.server.limits import Limits
from engine.server.process_client import ProcessClient
from engine.server.ray_actor import EngineActor
from engine.server.scale_out import ScaleOut
from engine.server.switchboard import Caller, EngineLine, Switchboard
from engine.session import EngineSettings
from traces.errors import InputError

log = logging.getLogger(__name__)

INSTALL = "pip install 'charioteer[ray]'"


class RayCluster:
    """Keeps ``scale.replicas`` engines running as actors, and hands a :class:`ClusterClient` those that call in.

    They are actors rather than replicas of a Ray Serve deployment, for Serve chooses among those by a rule of its own.
    They belong to the process that made them, and end with it, however it ends. Ray starts one again whose process or
    machine is lost, wherever there is room.
    """

    def __init__(self, ray: Any, blueprint: Blueprint, scale: ScaleOut, limits: Limits, *, host: str) -> None:
        self._ray = ray
        self._loop = asyncio.get_running_loop()
        self._scale = scale
        self._first: asyncio.Future[None] = self._loop.create_future()
        self._joining: set[asyncio.Task[None]] = set()
        self._switchboard = Switchboard(host, self._take)
        seed = blueprint.settings.seed
        self.client = ClusterClient(scale.weights, scale.router, limits, seed=seed, dismiss=self.dismiss)
        made = ray.remote(EngineActor).options(max_restarts=-1, **resources(blueprint.settings))
        self._actors = [
            made.remote(self._switchboard.hotline, index, blueprint.of_replica(index))
            for index in range(scale.replicas)
        ]

    async def all_up(self) -> ClusterClient:
        """Return the client once every engine is ready.

        Raises
        ------
        InputError
            If there is no engine as asked for.
        EngineDownError
            If one broke before it was ready.
        """
        placed = asyncio.gather(*(self._placed(actor) for actor in self._actors))
        up = asyncio.ensure_future(self.client.all_up())
        try:
            await placed
            await asyncio.wait({up, self._first}, return_when=asyncio.FIRST_COMPLETED)
            if self._first.done():
                self._first.result()
            self._first.cancel()
        except BaseException:
            await self.dismiss()
            raise
        finally:
            up.cancel()
        return self.client

    async def _placed(self, actor: Any) -> None:
        """Return once an actor runs somewhere; what can stop it from that is code that is missing there."""
        try:
            await actor.__ray_ready__.remote()
        except self._ray.exceptions.RayError as error:
            raise EngineDownError(f"Ray could not start an engine: {str(error).strip().splitlines()[-1]}") from error

    def _take(self, caller: Caller, line: EngineLine) -> None:
        def take() -> None:
            task = self._loop.create_task(self._join(caller, line))
            self._joining.add(task)
            task.add_done_callback(self._joining.discard)

        self._loop.call_soon_threadsafe(take)

    async def _join(self, caller: Caller, line: EngineLine) -> None:
        """Take in an engine that called; the first that cannot be built, or breaks before it is ready, says so."""
        name = f"replica {caller.index}"
        try:
            client = await ProcessClient.attach(line, line, self.client.member_limits(), name=name)
            await self.client.join(caller.index, client)
        except (InputError, ServerError) as error:
            log.error("%s did not start: %s", name, error)
            if not self._first.done():
                self._first.set_exception(error)
        else:
            log.info("%s is up: process %d", name, caller.pid)

    async def dismiss(self) -> None:
        """End all engines, for good."""
        self._switchboard.close()
        for actor in self._actors:
            self._ray.kill(actor, no_restart=True)


def resources(settings: EngineSettings) -> dict[str, int]:
    """Return what a replica takes of its machine: a GPU, or as many processors as it has threads.

    Raises
    ------
    InputError
        If a certain GPU is asked for: Ray gives each replica its own, which is then the only one that it sees.
    """
    device, _, number = settings.device.partition(":")
    if number:
        what = f"is {settings.device}, and Ray chooses the GPUs of replicas"
        raise InputError(what, where="--device", expected=device)
    return {"num_cpus": settings.threads} if device == "cpu" else {"num_cpus": 1, "num_gpus": 1}


@dataclass(frozen=True)
class Connected:
    """Ray, connected to a cluster; ``host`` is the address of this machine in it, ``grows`` whether it may get more."""

    ray: Any
    host: str
    grows: bool = True


def connect(scale: ScaleOut, settings: EngineSettings) -> Connected:
    """Join a Ray cluster, or begin one here, which nobody else can reach and which ends with this process.

    Raises
    ------
    InputError
        If Ray is not installed, there is no cluster, or one that began here has not enough GPUs.
    """
    needs, here = resources(settings), scale.ray_address is None
    if here:
        for name, value in alone().items():
            os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError as error:
        raise InputError("Ray is not installed", where="--replicas", expected=INSTALL) from error
    own: dict[str, Any] = {}
    if here:
        own = {"num_cpus": max(os.cpu_count() or 1, scale.replicas * needs["num_cpus"]), "include_dashboard": False}
    try:
        ray.init(address=scale.ray_address or "local", logging_level=logging.ERROR, namespace="charioteer", **own)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError, OSError) as error:
        what = f"cannot reach a cluster at {scale.ray_address}: {str(error).strip().splitlines()[0]}"
        raise InputError(what, where="--ray-address", expected="the address of a running one, or auto") from error
    return Connected(ray, _address(ray), grows=not here)


def joined() -> Connected:
    """Return Ray in a process that it started."""
    import ray

    return Connected(ray, _address(ray))


def alone() -> dict[str, str]:
    """Return the environment in which Ray listens at the loopback address alone, and there to those with a secret:
    whoever speaks to it can run code."""
    return {
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def _address(ray: Any) -> str:
    """Return the address of this machine in the cluster."""
    return str(ray.util.get_node_ip_address())


def _check_room(connected: Connected, replicas: int, needs: dict[str, int]) -> None:
    """See whether all replicas have room; a cluster that may still grow is waited for."""
    there = connected.ray.cluster_resources()
    for name, kind in (("num_gpus", "GPU"), ("num_cpus", "CPU")):
        need, has = replicas * needs.get(name, 0), int(there.get(kind, 0))
        if need > has and connected.grows:
            log.warning("%d replicas need %d %ss, and the cluster has %d: waiting for more", replicas, need, kind, has)
        elif need > has:
            raise InputError(f"{replicas} replicas need {need} {kind}s, and this machine has {has}", where="--replicas")


async def start_replicas(connected: Connected, blueprint: Blueprint, scale: ScaleOut, limits: Limits) -> ClusterClient:
    """Start all replicas of a cluster, and return their client once they are ready; as :meth:`RayCluster.all_up`."""
    _check_room(connected, scale.replicas, resources(blueprint.settings))
    return await RayCluster(connected.ray, blueprint, scale, limits, host=connected.host).all_up()
