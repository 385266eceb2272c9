"""One workload under one policy, in simulated time, into a run record."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from itertools import count
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import simpy

from policies.batch import Completion
from policies.blocks import KVMemory
from policies.catalog import PolicyChoice
from policies.sequence import Sequence
from profiler.cost_model import CostModel
from profiler.deployment import Deployment
from simulator.arrivals import Arrivals
from simulator.replica import Flight, Replica
from traces.run_record import RunWriter
from traces.workload import Workload

OnProgress = Callable[[int], None]


@dataclass(frozen=True, kw_only=True, eq=False)
class Scenario:
    """What is the same for all policies of a comparison."""

    workload: Workload
    deployment: Deployment
    cost_model: CostModel
    memory: KVMemory
    seed: int = 0


class RequestTimes:
    """What became of each request, as columns, filled in as requests finish."""

    def __init__(self, workload: Workload) -> None:
        size = len(workload)
        self.finished = 0
        self.columns: dict[str, np.ndarray[Any, Any]] = {
            "request_id": np.arange(size),
            "replica": np.zeros(size, np.int32),
            "arrival_s": workload.arrival_s,
            "scheduled_s": np.full(size, np.nan),
            "first_token_s": np.full(size, np.nan),
            "finished_s": np.full(size, np.nan),
            "prompt_tokens": workload.prompt_tokens,
            "output_tokens": workload.output_tokens,
            "generated_tokens": np.zeros(size, np.int64),
            "cached_tokens": np.zeros(size, np.int64),
            "preemptions": np.zeros(size, np.int32),
        }

    def finish(self, sequence: Sequence) -> None:
        """Note a sequence that has ended."""
        row, columns = sequence.request_id, self.columns
        columns["scheduled_s"][row] = sequence.scheduled_s
        columns["first_token_s"][row] = sequence.first_token_s
        columns["finished_s"][row] = sequence.finished_s
        columns["generated_tokens"][row] = sequence.generated
        columns["cached_tokens"][row] = sequence.cached_tokens
        columns["preemptions"][row] = sequence.preemptions
        self.finished += 1


def simulate(scenario: Scenario, choice: PolicyChoice, folder: Path, *, on_progress: OnProgress | None = None) -> None:
    """Run the scenario's workload under a policy and write the run record to ``folder``.

    ``on_progress`` is called with the number of finished requests, now and then.

    Raises
    ------
    InputError
        If the policy does not go with the memory, or a request can never be served.
    """
    stages = scenario.deployment.pipeline_parallel_size
    env = simpy.Environment()
    requests = RequestTimes(scenario.workload)
    arrivals = Arrivals(scenario.workload, scenario.memory.block_size)
    policy = choice.build(scenario.memory, stages=stages)
    with RunWriter(folder) as writer:
        record = partial(_record, writer, count(), requests, scenario.deployment, on_progress)
        Replica(env, policy, scenario.cost_model, arrivals, record)
        env.run()
        assert requests.finished == len(arrivals), "requests were left behind"
        writer.requests(requests.columns)
        writer.meta(_meta(scenario, choice))


def _record(
    writer: RunWriter,
    numbers: Iterator[int],
    requests: RequestTimes,
    deployment: Deployment,
    on_progress: OnProgress | None,
    flight: Flight,
    done: Completion,
) -> None:
    for sequence in done.finished:
        requests.finish(sequence)
    if on_progress is not None and done.finished:
        on_progress(requests.finished)
    batch = flight.batch
    writer.iteration(
        (
            next(numbers),
            0,
            flight.stage_start_s[0],
            flight.stage_start_s[-1] + flight.stage_time_s[-1],
            flight.stage_start_s,
            flight.stage_time_s,
            batch.prefill_tokens,
            len(batch.chunks),
            batch.decodes,
            batch.outputs,
            batch.decode_context_sum,
            batch.decode_context_max,
            batch.prefill_context_sum,
            flight.waiting,
            flight.running,
            flight.blocks_used,
            batch.preemptions,
            deployment.flops(batch),
            done.gaps,
        )
    )


def _meta(scenario: Scenario, choice: PolicyChoice) -> dict[str, Any]:
    """Return what ``run.json`` says of the run."""
    deployment, memory = scenario.deployment, scenario.memory
    return {
        "source": "simulator",
        "policy": {"name": choice.name, **asdict(choice.settings)},
        "deployment": deployment.to_json(),
        "workload": _describe(scenario.workload),
        "cost_model": scenario.cost_model.describe(),
        "seed": scenario.seed,
        "replicas": 1,
        "stages": deployment.pipeline_parallel_size,
        "gpus": deployment.gpus,
        "kv_blocks": memory.blocks,
        "block_size": memory.block_size,
        "max_num_seqs": choice.settings.max_num_seqs,
        "peak_flops": deployment.peak_flops,
        "versions": {"charioteer": version("charioteer"), "simpy": version("simpy")},
    }


def _describe(workload: Workload) -> dict[str, Any]:
    rate_per_s = workload.rate_per_s
    return {
        "name": workload.name,
        "requests": len(workload),
        "rate_per_s": rate_per_s if isfinite(rate_per_s) else None,
        "prompt_tokens": int(workload.prompt_tokens.sum()),
        "output_tokens": int(workload.output_tokens.sum()),
    }
