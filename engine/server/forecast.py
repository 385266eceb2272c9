"""What a simulator says of the load that there is, from a process of its own."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import threading
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Protocol

import numpy as np

from policies.blocks import KVMemory
from policies.catalog import PolicyChoice
from profiler.deployment import Deployment
from traces.errors import InputError
from traces.workload import HashIds, Workload

ENTRY_POINTS = "charioteer.forecast"
"""The group of entry points under which a simulator announces its :class:`Forecaster`."""
LOWEST_PRIORITY = 19
LONGEST_S = 60.0
"""A simulation that takes longer is given up."""


class Forecaster(Protocol):
    """Simulates an engine.

    Made as ``Forecaster(deployment=..., memory=..., profile=...)``: what runs where, the KV cache that policies fill,
    and the measurements that its cost model is fitted to (None: those that ship with the package).
    """

    def __init__(self, *, deployment: Deployment, memory: KVMemory, profile: Path | None) -> None: ...

    def forecast(self, choice: PolicyChoice, workload: Workload) -> dict[str, float]:
        """Return what a policy makes of a workload, from an empty engine on, by the names of metrics.

        Raises
        ------
        InputError
            If it cannot serve it.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A request that ended; ``ended_s`` and ``arrival_s`` by the machine's monotonic clock."""

    arrival_s: float
    ended_s: float
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int


@dataclass(frozen=True, kw_only=True)
class Engine:
    """The engine that is simulated, as a :class:`Forecaster` is told of it."""

    deployment: Deployment
    memory: KVMemory
    profile: Path | None


def simulator() -> EntryPoint | None:
    """Return where a simulator is, None where none is installed."""
    return next(iter(entry_points(group=ENTRY_POINTS)), None)


def workload_of(requests: Collection[Ended], block_size: int) -> Workload:
    """Return requests that ended, in order of arrival, as a workload.

    What was found in the prefix cache of each is one prefix that all have in common, the rest of a prompt is its own:
    so as many tokens are found again, once the first request has brought them.

    Raises
    ------
    ValueError
        If there are none.
    """
    if not requests:
        raise ValueError("no requests; expected at least one")
    ordered = sorted(requests, key=lambda each: each.arrival_s)
    arrival_s = np.array([each.arrival_s for each in ordered])
    counts = np.array([each.prompt_tokens // block_size for each in ordered], np.int64)
    values, own = [], 0
    for each, count in zip(ordered, counts.tolist(), strict=True):
        shared = min(each.cached_tokens // block_size, count)
        values += [*range(shared), *range(-own - count + shared, -own)]
        own += count - shared
    return Workload(
        name="the latest requests",
        arrival_s=arrival_s - arrival_s[0],
        prompt_tokens=np.array([each.prompt_tokens for each in ordered], np.int64),
        output_tokens=np.array([each.output_tokens for each in ordered], np.int64),
        hash_ids=HashIds(
            offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            values=np.array(values, np.int64),
            block_size=block_size,
        ),
    )


class ForecastProcess:
    """A process that simulates when it is asked to, when nothing else wants the processor.

    It starts with the first question and ends with :meth:`close`, or when its parent does.

    Parameters
    ----------
    where
        The simulator.
    engine
        What it simulates.
    """

    def __init__(self, where: EntryPoint, engine: Engine) -> None:
        self._where = where
        self._engine = engine
        self._process: multiprocessing.process.BaseProcess | None = None
        self._connection: Connection | None = None

    async def ask(self, choice: PolicyChoice, workload: Workload) -> dict[str, float]:
        """Return what the simulator says; one question at a time.

        Raises
        ------
        InputError
            If it cannot tell: there is no cost model, the policy does not serve the workload, it took too long.
        """
        answer = await asyncio.to_thread(self._ask, choice, workload)
        if isinstance(answer, str):
            raise InputError(answer)
        return answer

    def close(self) -> None:
        """End the process."""
        if self._process is not None and self._connection is not None:
            self._process.kill()
            self._process.join()
            self._connection.close()
        self._process = self._connection = None

    def _ask(self, choice: PolicyChoice, workload: Workload) -> dict[str, float] | str:
        connection = self._connection or self._start()
        try:
            connection.send((choice, workload))
            if connection.poll(LONGEST_S):
                answer: dict[str, float] | str = connection.recv()
                return answer
            why = f"the simulation took longer than {LONGEST_S:g} s"
        except (EOFError, OSError):
            why = "the process that simulates has died"
        self.close()
        return why

    def _start(self) -> Connection:
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        where = (self._where.name, self._where.value, self._where.group)
        self._process = context.Process(target=_serve, args=(there, where, self._engine), daemon=True, name="forecast")
        self._process.start()
        there.close()
        self._connection = here
        return here


def _serve(connection: Connection, where: tuple[str, str, str], engine: Engine) -> None:
    """Answer questions until there is nobody to ask."""
    os.nice(LOWEST_PRIORITY)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    forecaster: Forecaster | str = _load(where, engine)
    with suppress(EOFError, OSError):
        while True:
            choice, workload = connection.recv()
            connection.send(forecaster if isinstance(forecaster, str) else _answer(forecaster, choice, workload))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _load(where: tuple[str, str, str], engine: Engine) -> Forecaster | str:
    """Return a forecaster of the engine, or why there is none."""
    name, value, group = where
    try:
        made: type[Forecaster] = EntryPoint(name, value, group).load()
        return made(deployment=engine.deployment, memory=engine.memory, profile=engine.profile)
    except InputError as error:
        return str(error)


def _answer(forecaster: Forecaster, choice: PolicyChoice, workload: Workload) -> Mapping[str, float] | str:
    try:
        return forecaster.forecast(choice, workload)
    except InputError as error:
        return str(error)
