"""One workload under one policy, in simulated time, into a run record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from policies.arrivals import Arrivals
from policies.batch import Completion
from policies.blocks import KVMemory
from policies.catalog import PolicyChoice
from policies.sequence import Sequence
from profiler.cost_model import CostModel
from profiler.deployment import Deployment
from simulator.clock import Clock, Order
from simulator.flight import Flight
from simulator.interval_sample import IntervalSample
from simulator.range_marks import RangeMarks
from simulator.replica import Replica
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
        log = RunLog(writer, scenario.workload, scenario.deployment)
        record = _Recorder(scenario, choice, log, on_progress)
        replica = Replica(clock, policy, scenario.cost_model, record, ahead_s=ahead_s)
        feed(clock, arrivals, replica.submit)
        clock.run()
        assert log.finished == len(arrivals), "requests were left behind"
        log.close()
        writer.meta(_meta(scenario, choice, record))


def feed(clock: Clock, arrivals: Arrivals, route: Callable[[Sequence], None]) -> None:
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
    """Takes what a replica completes: into the run record, marked, with how sure its time is."""

    def __init__(self, scenario: Scenario, choice: PolicyChoice, log: RunLog, on_progress: OnProgress | None) -> None:
        self._log, self._on_progress = log, on_progress
        self._marks = RangeMarks(scenario.cost_model, choice, scenario.memory.max_model_len, strict=scenario.strict)
        self._intervals = IntervalSample(scenario.cost_model)

    def __call__(self, flight: Flight, done: Completion) -> None:
        batch, log = flight.batch, self._log
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
            outside=self._marks.mark(flight),
        )

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
