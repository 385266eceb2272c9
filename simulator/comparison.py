"""Several policies on one scenario, each in a process of its own."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

from policies.catalog import PolicyChoice
from simulator.child_processes import signals_masked
from simulator.simulation import Scenario, simulate
from traces.errors import InputError

OnProgress = Callable[[str, int], None]
"""Called with a label and how many of its requests have finished."""


def simulate_all(
    scenario: Scenario, choices: Mapping[str, PolicyChoice], folder: Path, on_progress: OnProgress
) -> None:
    """Simulate each policy of ``choices`` and write its run record to ``folder``/its label.

    As many run at once as this process may use cores. What they write does not depend on how many do.

    Raises
    ------
    InputError
        If one of the simulations refuses its input.
    """
    if len(choices) == 1:
        (label, choice), *_ = choices.items()
        simulate(scenario, choice, folder / label, on_progress=lambda count: on_progress(label, count))
        return
    waiting = list(choices.items())
    running: dict[Connection, tuple[str, SpawnProcess]] = {}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        while waiting or running:
            while waiting and len(running) < cores:
                label, choice = waiting.pop(0)
                with signals_masked():
                    connection, process = _start(scenario, choice, folder / label)
                    running[connection] = label, process
            _listen(running, on_progress)
    finally:
        for _, process in running.values():
            process.kill()
            process.join()


def _start(scenario: Scenario, choice: PolicyChoice, folder: Path) -> tuple[Connection, SpawnProcess]:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(scenario, choice, folder, there), daemon=True)
    process.start()
    there.close()
    return here, process


def _work(scenario: Scenario, choice: PolicyChoice, folder: Path, connection: Connection) -> None:
    step = max(1, len(scenario.workload) // 200)

    def on_progress(count: int) -> None:
        if count % step == 0:
            connection.send(count)

    try:
        simulate(scenario, choice, folder, on_progress=on_progress)
        connection.send(len(scenario.workload))
    except (InputError, OSError) as error:
        with suppress(BrokenPipeError):
            connection.send(str(error))


def _listen(running: dict[Connection, tuple[str, SpawnProcess]], on_progress: OnProgress) -> None:
    """Wait for news, pass it on, and let go of the processes that have ended."""
    for connection in wait(list(running)):
        assert isinstance(connection, Connection)
        label, process = running[connection]
        try:
            news = connection.recv()
        except EOFError:
            process.join()
            del running[connection]
            if process.exitcode:
                raise RuntimeError(f"the simulation of {label} died (exit status {process.exitcode})") from None
            continue
        if isinstance(news, str):
            raise InputError(news)
        on_progress(label, news)
