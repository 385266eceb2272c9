"""One workload under one policy, in simulated time, into a run record."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from policies.arrivals import Arrivals
from policies.batch import Completion
from policies.catalog import PolicyChoice
from policies.sequence import Sequence as Served
from simulator.clock import Clock, Order
from simulator.cluster import Cluster, Group
from simulator.dispatcher import Dispatcher
from simulator.flight import Flight
from simulator.interval_sample import IntervalSample
from simulator.range_marks import RangeMarks
from traces.run_log import RunLog, describe_workload
from traces.run_record import RunWriter
from traces.workload import Workload

OnProgress = Callable[[int], None]
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
    clock, cluster, workload = Clock(), scenario.cluster, scenario.workload
    arrivals = Arrivals(workload, cluster.block_size)
    ahead_s = None if scenario.step else _ahead(clock, arrivals, cluster.replicas)
    with RunWriter(folder) as writer:
        log = RunLog(
            writer,
            workload,
            cluster.groups[0].deployment,
            replicas=cluster.replicas,
            settled_s=lambda: dispatcher.settled_s,
        )
        records = _recorders(scenario, choice, log, on_progress)
        dispatcher = Dispatcher(
            clock, cluster, choice, workload, log.columns, records, seed=scenario.seed, ahead_s=ahead_s
        )
        feed(clock, arrivals, dispatcher.entrance)
        with _no_search_for_cycles():
            clock.run()
        assert log.finished == len(arrivals), "requests were left behind"
        log.close()
        writer.meta(_meta(scenario, choice, records, dispatcher))


@contextmanager
def _no_search_for_cycles() -> Iterator[None]:
    """Keep the garbage collector off: the loop makes no cycles, and looking for them takes longer the more replicas."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _ahead(clock: Clock, arrivals: Arrivals, replicas: int) -> Callable[[], float]:
    """Return until when each of so many replicas may plan ahead: about when the next request comes to it.

    Of several none runs far ahead of the others, for what it reports waits in memory until they are as far.
    """
    if replicas == 1:
        return partial(arrivals.ahead_s, 1)
    return lambda: min(arrivals.ahead_s(replicas), clock.now + AHEAD_S)


def feed(clock: Clock, arrivals: Arrivals, route: Callable[[Served], None]) -> None:
    """Let requests arrive: give each to ``route`` when its time comes."""

    def arrive() -> None:
        for sequence in arrivals.due(clock.now):
            route(sequence)
        wait()

    def wait() -> None:
        next_s = arrivals.next_s
        if next_s is not None:
            clock.at(next_s, arrive, Order.ARRIVAL)

    wait()


class _Recorder:
    """Takes what the replicas of a group complete: into the run record, marked, with how sure their times are.

    How sure is asked of iterations of the group's ``first`` replica, which end in the same order however far each
    replica runs ahead.
    """

    def __init__(
        self,
        group: Group,
        first: int,
        choice: PolicyChoice,
        log: RunLog,
        on_progress: OnProgress | None,
        *,
        strict: bool,
    ) -> None:
        self._group, self._first, self._log, self._on_progress = group, first, log, on_progress
        self._max_num_seqs = choice.settings.max_num_seqs
        self._marks = RangeMarks(group.cost_model, choice, group.memory.max_model_len, strict=strict)
        self._intervals = IntervalSample(group.cost_model)

    def __call__(self, replica: int, flight: Flight, done: Completion) -> None:
        batch, log = flight.batch, self._log
        if replica == self._first:
            self._intervals.take(flight)
        if done.finished:
            log.ended(done.finished)
            if self._on_progress is not None:
                self._on_progress(log.finished)
        log.iterations(
            batch,
            stage_start_s=flight.stage_start_s,
            stage_time_s=flight.stage_time_s,
            blocks_used=flight.blocks_used,
            waiting=flight.waiting,
            running=flight.running,
            gaps=flight.gaps or done.gaps,
            outside=self._marks.mark(flight, replica),
            replica=replica,
        )

    def as_dict(self) -> dict[str, Any]:
        """Return what ``run.json`` says of the group, and of how the cost model fits this run."""
        group = self._group
        fit = {"profiled_range": self._marks.as_dict(), "interval": self._intervals.as_dict()}
        return {
            "count": group.count,
            "role": group.role,
            "deployment": group.deployment.to_json(),
            "stages": group.stages,
            "gpus": group.deployment.gpus,
            "kv_blocks": group.memory.blocks,
            "peak_flops": group.deployment.peak_flops,
            "max_num_seqs": self._max_num_seqs,
            "cost_model": {**group.cost_model.describe(), **fit},
        }


def _recorders(
    scenario: Scenario, choice: PolicyChoice, log: RunLog, on_progress: OnProgress | None
) -> list[_Recorder]:
    made, first = [], 0
    for group in scenario.cluster.groups:
        made.append(_Recorder(group, first, group.choice(choice), log, on_progress, strict=scenario.strict))
        first += group.count
    return made


def _meta(
    scenario: Scenario, choice: PolicyChoice, records: Sequence[_Recorder], dispatcher: Dispatcher
) -> dict[str, Any]:
    """Return what ``run.json`` says of the run."""
    cluster = scenario.cluster
    return {
        "source": "simulator",
        "policy": {"name": choice.name, **asdict(choice.settings)},
        "workload": describe_workload(scenario.workload),
        "seed": scenario.seed,
        "groups": [record.as_dict() for record in records],
        "block_size": cluster.block_size,
        "router": cluster.router.as_dict() if cluster.replicas > 1 else None,
        "link": None if cluster.link is None else asdict(cluster.link),
        "failures": dispatcher.failures,
        "versions": {"charioteer": version("charioteer"), "simpy": version("simpy")},
    }
