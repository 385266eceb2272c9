"""All routers by name, and which one a person asked for."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as Listing
from dataclasses import asdict, dataclass
from os import PathLike
from typing import Any

from policies.routing.least_loaded import LeastKV, LeastRequests
from policies.routing.prefix_affinity import PrefixAffinity, PrefixAffinitySettings
from policies.routing.router import M, PowerOfTwo, RandomRouter, RoundRobin, Router
from policies.selection import parse_setting
from traces.errors import InputError
from traces.settings import from_mapping

ROUTERS: dict[str, type[Router[Any]]] = {
    router.name: router for router in (RoundRobin, RandomRouter, LeastRequests, LeastKV, PrefixAffinity, PowerOfTwo)
}
"""Name -> router."""


@dataclass(frozen=True, kw_only=True)
class RouterChoice:
    """Which router to run; ``affinity`` is there for prefix-affinity alone."""

    name: str = LeastRequests.name
    affinity: PrefixAffinitySettings | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return what ``run.json`` says of it: its name and its settings."""
        return {"name": self.name, **(asdict(self.affinity) if self.affinity else {})}

    def build(self, members: Listing[M], *, seed: int) -> Router[M]:
        """Return a fresh router over ``members``."""
        if self.affinity is not None:
            return PrefixAffinity(members, seed=seed, settings=self.affinity)
        return ROUTERS[self.name](members, seed=seed)


def choose_router(name: str, settings: Mapping[str, Any], *, where: str | PathLike[str]) -> RouterChoice:
    """Return the router ``name`` with ``settings``, which come from ``where``.

    Raises
    ------
    InputError
        If there is no such router, or it has no such setting, or the setting's value is wrong.
    """
    if name not in ROUTERS:
        raise InputError(f"unknown router {name!r}", where=where, expected=f"one of {', '.join(ROUTERS)}")
    if name == PrefixAffinity.name:
        return RouterChoice(name=name, affinity=from_mapping(PrefixAffinitySettings, settings, where=where))
    if settings:
        raise InputError(f"{name} has no setting {next(iter(settings))!r}", where=where, expected="its name alone")
    return RouterChoice(name=name)


def parse_router(text: str, *, where: str | PathLike[str]) -> RouterChoice:
    """Return the router that ``text`` names, ``prefix-affinity:overload=2`` for one with settings of its own.

    Raises
    ------
    InputError
        As :func:`choose_router`.
    """
    name, *pairs = text.split(":")
    return choose_router(name, dict(parse_setting(pair, where=where) for pair in pairs), where=where)
