"""Measuring what the simulator is to be judged by: the machine, and a workload under every policy and load."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from engine import hardware
from engine.engine import Engine, Iteration
from engine.iterations import EngineIterations
from engine.kernels import TorchKernels
from engine.replay import check_lengths, deployment_of, replay
from engine.runner import Runner
from policies.blocks import KVMemory
from policies.catalog import PolicyChoice
from profiler.deployment import Deployment
from profiler.grid import Grid, cpu_grid, design, gpu_grid
from profiler.iteration import OP as ITERATION
from profiler.iteration import design_iterations, kv_blocks
from profiler.kernels import OpShape
from profiler.measure import Measurement
from profiler.profile import write_profile
from traces.errors import InputError
from traces.files import write_json
from traces.workload import FloatColumn, Workload

ENTRY_POINTS = "charioteer.validation"
"""The group of entry points under which a simulator announces its :class:`Judge`."""
PROFILE, MEASURED, PAUSES = "profile", "measured", "pauses.json"
OPS_SHARE = 0.35
"""Of the measuring budget, what single ops get; the rest goes to whole iterations."""
PAUSE_EVERY_S, PAUSE_S = 0.5, 0.2
"""How often, by its own clock, a replay stands still for designed iterations, and for about how long."""
LIGHT_S = 0.15
"""Designed iterations longer than this are not run in a pause."""
MEASURING_SHARE = 0.25
"""Of the progress bar, for measuring the machine before anything is replayed."""
DESIGN_ROOM = 0.9
"""Share of the KV cache that designed batches are drawn to fill at most; each of their requests ends in a block of its
own, so that a few are still too large and left out."""
TRIMMED = (0.05, 0.95)
"""Shares of the iterations in pauses between which they count as they are, and beyond which as those."""
Case = tuple[str, str]
"""A load and a policy."""
Pause = Mapping[OpShape, list[float]]
"""The seconds of each run of the designed iterations of one pause."""
Progress = Callable[[str, float], None]
"""Told what is going on, and the share of all of it that is done."""


class Judge(Protocol):
    """What simulates, and says how close that comes to what was measured.

    Made as ``Judge(deployment=..., memory=..., profile=..., seed=...)``: what runs where, the KV cache that
    policies fill, the folder of a profile of this machine.
    """

    def __init__(self, *, deployment: Deployment, memory: KVMemory, profile: Path, seed: int) -> None: ...

    def saturation(self, workload: Workload, choices: Mapping[str, PolicyChoice]) -> dict[str, float]:
        """Return the requests/s of each policy when all requests are there at once, as simulated."""
        ...

    def judge(
        self,
        folder: Path,
        workloads: Mapping[str, Workload],
        choices: Mapping[str, PolicyChoice],
        *,
        drift: Mapping[Case, float] | None = None,
        others: Mapping[Case, float] | None = None,
        command: str = "",
    ) -> Any:
        """Simulate workloads (by load) under policies (by label), compare with ``folder/measured``, and report.

        Writes ``simulated``, ``audit``, ``validation.json`` and ``report.html`` beside it. ``drift`` says how
        much longer iterations took on average during a replay than in the profile: what is simulated is the machine
        as it was. ``others`` says how many processors other programs kept busy; it is only printed.
        """
        ...

    def show(self, validation: Any, *, console: Any) -> None:
        """Print what :meth:`judge` returned."""
        ...


def find_judge() -> type[Judge]:
    """Return what a simulator that is installed offers.

    Raises
    ------
    InputError
        If there is none.
    """
    found = list(entry_points(group=ENTRY_POINTS))
    if not found:
        raise InputError("no simulator is installed to be validated", expected="pip install charioteer[engine]")
    judge: type[Judge] = found[0].load()
    return judge


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured.

    Attributes
    ----------
    workload
        At any rate of its own.
    choices
        Policies by label.
    loads
        By name, the rate as a share of the median of what the policies sustain by simulation.
    model
        The preset, folder or ``config.json`` that the runner's model comes from.
    budget_s
        Seconds for measuring the machine, beside the replays.
    """

    workload: Workload
    choices: Mapping[str, PolicyChoice]
    loads: Mapping[str, float]
    model: str
    seed: int
    budget_s: float


class Trial:
    """One measurement of everything, on one runner that nobody else uses.

    How fast a machine is changes: a neighbour takes cache and bandwidth, a clock rate falls. So every replay stands
    still now and then, its clock too, while designed iterations run: against what the same ones took before all
    replays they tell how fast the machine was during each, whatever was replayed (``pauses.json`` keeps them). With
    that divided out they go into the profile, which is so of the machine as it was before. The designed iterations
    write over the KV of the requests in service, so that the tokens of these replays mean nothing; their number and
    their times do.

    Parameters
    ----------
    folder
        Where ``profile``, ``measured`` and ``pauses.json`` are written; it exists.

    Raises
    ------
    InputError
        If a policy can never serve a request of the workload, or the KV cache is too small to measure anything.
    """

    def __init__(self, runner: Runner, plan: Plan, folder: Path, progress: Progress) -> None:
        self.runner, self.plan, self.folder, self.progress = runner, plan, folder, progress
        self.deployment = deployment_of(runner, plan.choices.values(), plan.model)
        for choice in plan.choices.values():
            check_lengths(Engine(runner, choice), plan.workload)
        spec, device = self.deployment.spec, runner.device.type
        self.kernels = TorchKernels(accelerator=device, dtype=spec.dtype, threads=torch.get_num_threads())
        self.spec = replace(spec, fused=self.kernels.fused)
        self.measurement = Measurement(self.kernels, self.spec, self.deployment.hardware)
        self.iterations = EngineIterations(runner)
        self.shapes = self._design()
        self.before_s: dict[OpShape, float] = {}
        self.samples: dict[Case, list[Pause]] = {}
        self.others: dict[Case, float] = {}

    def judged_by(self, make: type[Judge], command: str) -> tuple[Judge, Any]:
        """Measure all there is to measure; return the judge and what it found."""
        self._measure_machine()
        judge = self._judge(make)
        loads = self._loads(judge.saturation(self.plan.workload, self.plan.choices))
        self._replay(loads)
        self.progress("simulating and comparing", 1.0)
        drift = self._drift()
        write_json(self.folder / PAUSES, self._paused(drift))
        judge = self._judge(make)
        found = judge.judge(self.folder, loads, self.plan.choices, drift=drift, others=self.others, command=command)
        return judge, found

    def _judge(self, make: type[Judge]) -> Judge:
        memory, profile = self.runner.memory, self.folder / PROFILE
        try:
            return make(deployment=self.deployment, memory=memory, profile=profile, seed=self.plan.seed)
        except InputError as error:
            what = f"what was measured in {self.plan.budget_s:g} seconds cannot be fitted"
            raise InputError(what, where="--budget", expected="a minute or more") from error

    def _design(self) -> list[OpShape]:
        """Return iterations as large as those to come, and no larger."""
        memory = self.runner.memory
        reach = Grid(
            tokens=self.deployment.max_num_batched_tokens,
            sequences=min(self.deployment.max_num_seqs, len(self.plan.workload)),
            context=memory.max_model_len,
            edge=0,
            kv_tokens=0,
        )
        room = int(DESIGN_ROOM * memory.blocks * memory.block_size)
        shapes = design_iterations(self.spec, reach, kv_tokens=room)
        fitting = [shape for shape in shapes if kv_blocks(shape, memory.block_size) <= memory.blocks]
        if not fitting:
            what = f"{memory.blocks} KV blocks hold none of the batches by which iterations are measured"
            raise InputError(what, expected="more --num-gpu-blocks-override")
        return fitting

    def _measure_machine(self) -> None:
        machine, budget_s = self.kernels.machine(), self.plan.budget_s
        grid = cpu_grid(self.spec) if machine.is_cpu else gpu_grid(self.spec, machine.memory_bytes)
        ops_s = OPS_SHARE * budget_s
        self.runner.warm_up()
        self.measurement.rounds(
            self.kernels, design(self.spec, grid), budget_s=ops_s, progress=self._part("measuring ops", 0, ops_s)
        )
        self.measurement.rounds(
            self.iterations,
            self.shapes,
            budget_s=budget_s - ops_s,
            progress=self._part("measuring iterations", ops_s, budget_s - ops_s),
        )
        self.before_s = self.measurement.medians_s()
        self._write_profile()

    def _loads(self, sustained: Mapping[str, float]) -> dict[str, Workload]:
        """Return the workload at each load: shares of what the policy in the middle sustains."""
        own, middle = self.plan.workload, float(np.median(list(sustained.values())))
        return {name: own.scaled(share * middle / own.rate_per_s) for name, share in self.plan.loads.items()}

    def _replay(self, loads: Mapping[str, Workload]) -> None:
        cases = [(load, label) for load in loads for label in self.plan.choices]
        for number, case in enumerate(cases):
            self.progress(f"replaying {', '.join(case)}", MEASURING_SHARE + (1 - MEASURING_SHARE) * number / len(cases))
            self._replay_case(case, loads[case[0]])

    def _replay_case(self, case: Case, workload: Workload) -> None:
        load, label = case
        choice = self.plan.choices[label]
        engine = Engine(self.runner, choice, seed=self.plan.seed)
        samples = self.samples[case] = []
        light = [shape for shape, time_s in self.before_s.items() if shape.op == ITERATION and time_s <= LIGHT_S]
        paused_s = -PAUSE_EVERY_S

        def pause(iteration: Iteration) -> None:
            nonlocal paused_s
            if light and iteration.end_s - paused_s >= PAUSE_EVERY_S:
                paused_s = iteration.end_s
                with engine.clock.stopped():
                    samples.append(self.measurement.rounds(self.iterations, light, budget_s=PAUSE_S))

        start_s, others_s = time.perf_counter(), hardware.others_busy_s()
        folder = self.folder / MEASURED / load / label
        replay(engine, choice, workload, folder, model=self.plan.model, on_iteration=pause)
        after_s = hardware.others_busy_s()
        if others_s is not None and after_s is not None:
            self.others[case] = max(0.0, (after_s - others_s) / (time.perf_counter() - start_s))

    def _drift(self) -> dict[Case, float]:
        """Return how much longer iterations took during each replay than in the profile, and complete the profile.

        A median tells how fast the machine was: pauses go into the profile with theirs divided out. What is
        returned is an average, without the twentieth at either end: requests wait for slow iterations too, which
        medians do not show.
        """
        paused = {case: pauses for case, pauses in self.samples.items() if pauses}
        for pauses in paused.values():
            pace = float(np.median(_ratios(pauses, self.before_s)))
            for pause in pauses:
                self.measurement.correct(pause, pace)
        self._write_profile()
        profiled_s = self.measurement.medians_s()
        ratios = {case: _ratios(pauses, profiled_s) for case, pauses in paused.items()}
        return {case: float(np.clip(own, *np.quantile(own, TRIMMED)).mean()) - 1 for case, own in ratios.items()}

    def _write_profile(self) -> None:
        write_profile(self.folder / PROFILE, self.measurement.profile())

    def _paused(self, drift: Mapping[Case, float]) -> dict[str, Any]:
        """Return what ran in the pauses of each replay: by number of the designed iteration, its seconds."""
        numbers = {shape: number for number, shape in enumerate(self.before_s)}
        return {
            "iterations": [{**asdict(shape), "before_s": before_s} for shape, before_s in self.before_s.items()],
            "replays": [
                {
                    "load": load,
                    "policy": label,
                    "drift": drift.get((load, label)),
                    "pauses": [{str(numbers[shape]): times for shape, times in pause.items()} for pause in pauses],
                }
                for (load, label), pauses in self.samples.items()
            ],
        }

    def _part(self, label: str, done_s: float, part_s: float) -> Callable[[float, str], None]:
        return lambda share, _: self.progress(label, MEASURING_SHARE * (done_s + share * part_s) / self.plan.budget_s)


def _ratios(pauses: list[Pause], usual_s: Mapping[OpShape, float]) -> FloatColumn:
    """Return the times of all iterations that ran in ``pauses`` over the usual ones, [iterations]."""
    return np.concatenate([np.asarray(times) / usual_s[shape] for pause in pauses for shape, times in pause.items()])
