"""One workload under one policy, in simulated time, into a run record."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from math import inf
from pathlib import Path
from typing import Any

from policies.arrivals import Arrivals
from policies.catalog import PolicyChoice
from policies.sequence import Sequence
from simulator.clock import Clock, Order, place_of
from simulator.cluster import Cluster
from simulator.dispatcher import Dispatcher
from simulator.recorder import OnProgress, Recorder
from traces.run_log import describe_workload
from traces.run_record import RunRecord, RunRecorder, RunWriter
from traces.workload import Workload

AHEAD_S = 1.0
"""How far one of several replicas runs ahead at most: some 100 iterations."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Scenario:
    """What is the same for all policies of a comparison.

    With ``strict`` the first batch outside of what the cost model was measured on is an error; else it is marked. With
    ``step`` every iteration is scheduled by itself: slower, to the same bytes (see :class:`simulator.replica.Replica`).
    """

    workload: Workload
    cluster: Cluster
    seed: int = 0
    strict: bool = False
    step: bool = False


def simulate(scenario: Scenario, choice: PolicyChoice, folder: Path, *, on_progress: OnProgress | None = None) -> None:
    """Run the scenario's workload under a policy and write the run record to ``folder``.

    ``on_progress`` is called with the number of finished requests, now and then.

    Raises
    ------
    InputError
        If the policy does not go with the memory, a request can never be served, or a strict scenario comes to a
        batch that is outside of what was measured.
    """
    with RunWriter(folder) as writer:
        _run(scenario, choice, writer, on_progress)


def simulate_in_memory(scenario: Scenario, choice: PolicyChoice) -> RunRecord:
    """Return what :func:`simulate` writes, without a file; raise what it raises."""
    recorder = RunRecorder()
    _run(scenario, choice, recorder)
    return recorder.record()


def _run(scenario: Scenario, choice: PolicyChoice, writer: RunRecorder, on_progress: OnProgress | None = None) -> None:
    clock, cluster, workload = Clock(), scenario.cluster, scenario.workload
    arrivals = Arrivals(workload, cluster.block_size)
    ahead_s = None if scenario.step else _ahead(clock, arrivals, cluster.replicas)
    record = Recorder(
        cluster,
        choice,
        workload,
        writer,
        lambda: dispatcher.settled_s,
        strict=scenario.strict,
        on_progress=on_progress,
    )
    dispatcher = Dispatcher(
        clock, cluster, choice, workload, record.columns, record, seed=scenario.seed, ahead_s=ahead_s
    )
    feed(clock, arrivals, dispatcher.entrance)
    with _no_garbage_collection():
        clock.run()
    assert record.log.finished == len(arrivals), "requests were left behind"
    record.close()
    writer.meta(_meta(scenario, choice, record, dispatcher))


def _ahead(clock: Clock, arrivals: Arrivals, replicas: int) -> Callable[[], float]:
    """Return until when each of so many replicas may plan ahead: about when the next request comes to it.

    Of several none runs far ahead of the others, for what it reports waits in memory until they are as far.
    """
    if replicas == 1:
        return partial(arrivals.ahead_s, 1)
    return lambda: min(arrivals.ahead_s(replicas), clock.now + AHEAD_S)


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Spare Python the search for cycles among millions of objects that form none: a third of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def feed(clock: Clock, arrivals: Arrivals, route: Callable[[Sequence], None]) -> None:
    """Let requests arrive: give each to ``route`` when its time comes."""

    def arrive() -> None:
        while True:
            for sequence in arrivals.due(clock.now):
                route(sequence)
            next_s = arrivals.next_s
            if next_s >= clock.next_s:
                break
            clock.skip(next_s, place_of(Order.ARRIVAL))
        wait()

    def wait() -> None:
        if arrivals.next_s < inf:
            clock.at(arrivals.next_s, arrive, Order.ARRIVAL)

    wait()


def _meta(scenario: Scenario, choice: PolicyChoice, record: Recorder, dispatcher: Dispatcher) -> dict[str, Any]:
    """Return what ``run.json`` says of the run."""
    cluster = scenario.cluster
    return {
        "source": "simulator",
        "policy": {"name": choice.name, **asdict(choice.settings)},
        "workload": describe_workload(scenario.workload),
        "seed": scenario.seed,
        "groups": [group.as_dict() for group in record.groups],
        "block_size": cluster.block_size,
        "router": cluster.router.as_dict() if cluster.replicas > 1 else None,
        "link": None if cluster.link is None else asdict(cluster.link),
        "failures": dispatcher.failures,
        "versions": {"charioteer": version("charioteer"), "simpy": version("simpy")},
    }
