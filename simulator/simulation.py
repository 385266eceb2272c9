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
from policies.batch import Completion
from policies.blocks import KVMemory
from policies.catalog import PolicyChoice
from policies.sequence import Sequence
from profiler.cost_model import CostModel
from profiler.deployment import Deployment
from simulator.bubble_ledger import BubbleLedger
from simulator.clock import Clock, Order
from simulator.flight import Flight
from simulator.interval_sample import IntervalSample
from simulator.range_marks import RangeMarks
from simulator.replica import Replica
from traces.iteration_log import Columns
from traces.run_log import RunLog, describe_workload
from traces.run_record import RunWriter
from traces.workload import Workload

OnProgress = Callable[[int], None]


@dataclass(frozen=True, kw_only=True, eq=False)
class Scenario:
    """What is the same for all policies of a comparison.

    With ``strict`` the first batch outside of what the cost model was measured on is an error; else it is marked. With
    ``step`` every iteration is scheduled by itself: slower, to the same bytes (see :class:`simulator.replica.Replica`).
    """

    workload: Workload
    deployment: Deployment
    cost_model: CostModel
    memory: KVMemory
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
    stages = scenario.deployment.pipeline_parallel_size
    clock = Clock()
    arrivals = Arrivals(scenario.workload, scenario.memory.block_size)
    policy = choice.build(scenario.memory, stages=stages)
    ahead_s = None if scenario.step else partial(arrivals.ahead_s, 1)
    with RunWriter(folder) as writer:
        record = _Recorder(scenario, choice, writer, on_progress)
        log = record.log
        replica = Replica(clock, policy, scenario.cost_model, record, ahead_s=ahead_s)
        feed(clock, arrivals, replica.submit)
        with _no_garbage_collection():
            clock.run()
        assert log.finished == len(arrivals), "requests were left behind"
        record.close()
        writer.meta(_meta(scenario, choice, record))


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
            clock.skip(next_s)
        wait()

    def wait() -> None:
        if arrivals.next_s < inf:
            clock.at(arrivals.next_s, arrive, Order.ARRIVAL)

    wait()


class _Recorder:
    """Takes what a replica completes: into the run record, marked, with how sure its time is."""

    def __init__(
        self, scenario: Scenario, choice: PolicyChoice, writer: RunWriter, on_progress: OnProgress | None
    ) -> None:
        self.log = RunLog(writer, scenario.workload, self.complete)
        self._deployment, self._on_progress = scenario.deployment, on_progress
        self._ledger = BubbleLedger(self.log.columns["bubble_s"])
        self._pipelined = scenario.deployment.pipeline_parallel_size > 1
        self._marks = RangeMarks(scenario.cost_model, choice.name, strict=scenario.strict)
        self._intervals = IntervalSample(scenario.cost_model)

    def __call__(self, flight: Flight, done: Completion) -> None:
        if self._pipelined:
            self._ledger.enter(flight)
        if done.finished:
            self.log.ended(done.finished)
            if self._on_progress is not None:
                self._on_progress(self.log.finished)
        self.log.iterations(flight)

    def complete(self, columns: Columns) -> Columns:
        """Return what follows of iterations from their other columns: FLOPs, and whether they were measured."""
        self._intervals.take(columns)
        return {"flops": self._deployment.flops_of(columns), "outside": self._marks.mark(columns)}

    def close(self) -> None:
        """Hand over everything that is left."""
        self._ledger.close()
        self.log.close()

    def as_dict(self) -> dict[str, Any]:
        """Return what ``run.json`` says of how the cost model fits this run."""
        return {"profiled_range": self._marks.as_dict(), "interval": self._intervals.as_dict()}


def _meta(scenario: Scenario, choice: PolicyChoice, record: _Recorder) -> dict[str, Any]:
    """Return what ``run.json`` says of the run."""
    deployment, memory = scenario.deployment, scenario.memory
    return {
        "source": "simulator",
        "policy": {"name": choice.name, **asdict(choice.settings)},
        "workload": describe_workload(scenario.workload),
        "seed": scenario.seed,
        "groups": [
            {
                "count": 1,
                "role": "both",
                "deployment": deployment.to_json(),
                "stages": deployment.pipeline_parallel_size,
                "gpus": deployment.gpus,
                "kv_blocks": memory.blocks,
                "peak_flops": deployment.peak_flops,
                "max_num_seqs": choice.settings.max_num_seqs,
                "cost_model": {**scenario.cost_model.describe(), **record.as_dict()},
            }
        ],
        "block_size": memory.block_size,
        "router": None,
        "link": None,
        "failures": [],
        "versions": {"charioteer": version("charioteer"), "simpy": version("simpy")},
    }
