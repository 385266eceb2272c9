"""Measuring what the simulator is to be judged by: the machine, and a workload under every policy and load."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from engine import hardware
from engine.engine import Engine
from engine.iterations import EngineIterations
from engine.kernels import TorchKernels
from engine.replay import deployment_of, replay
from engine.runner import Runner
from policies.blocks import KVMemory
from policies.catalog import PolicyChoice
from profiler.deployment import Deployment
from profiler.grid import Grid, cpu_grid, design, gpu_grid
from profiler.iteration import design_iterations
from profiler.kernels import OpShape
from profiler.measure import Measurement
from profiler.profile import write_profile
from traces.errors import InputError
from traces.workload import Workload

ENTRY_POINTS = "charioteer.validation"
"""The group of entry points under which a simulator announces its :class:`Judge`."""
PROFILE, MEASURED = "profile", "measured"
OPS_SHARE, FIRST_SHARE = 0.35, 0.2
"""Of the measuring budget, what single ops get, and whole iterations before anything is replayed; the rest is
spent on whole iterations between the replays."""
QUIET = 0.1
"""Processors that other programs may keep busy during a replay; beyond, it is done again."""
RETRIES = 3
"""Replays that are done again at most, of all."""
DESIGN_ROOM = 0.9
"""Share of the KV cache that designed batches fill at most: each of their requests ends in a block of its own."""
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
        drift: Mapping[tuple[str, str], float] | None = None,
        others: Mapping[tuple[str, str], float] | None = None,
        command: str = "",
    ) -> Any:
        """Simulate workloads (by load) under policies (by label), compare with ``folder/measured``, and report.

        Writes ``simulated``, ``audit``, ``validation.json`` and ``report.html`` beside it. ``drift`` says how
        much slower the machine was around a replay than in the median of the profile, ``others`` how many
        processors other programs kept busy during it; both are only printed.
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

    The machine is measured in slices before, between and after the replays: what slows it down for a while
    meets profile and replays alike, and how fast it was around each replay is known.

    Parameters
    ----------
    folder
        Where ``profile`` and ``measured`` are written; it exists.
    """

    def __init__(self, runner: Runner, plan: Plan, folder: Path, progress: Progress) -> None:
        self.runner, self.plan, self.folder, self.progress = runner, plan, folder, progress
        self.deployment = deployment_of(runner, plan.choices.values(), plan.model)
        spec, device = self.deployment.spec, runner.device.type
        self.kernels = TorchKernels(accelerator=device, dtype=spec.dtype, threads=torch.get_num_threads())
        self.spec = replace(spec, fused=self.kernels.fused)
        self.measurement = Measurement(self.kernels, self.spec, self.deployment.hardware)
        self.iterations = EngineIterations(runner)
        self.shapes = self._design()
        self.slices: list[Mapping[OpShape, list[float]]] = []
        self.others: dict[tuple[str, str], float] = {}
        self.retries = RETRIES

    def judged_by(self, make: type[Judge], command: str) -> tuple[Judge, Any]:
        """Measure all there is to measure; return the judge and what it found."""
        self._measure_machine()
        loads = self._loads(self._judge(make).saturation(self.plan.workload, self.plan.choices))
        self._replay(loads)
        self._write_profile()
        judge = self._judge(make)
        self.progress("simulating and comparing", 1.0)
        drift = self._drift(loads)
        found = judge.judge(self.folder, loads, self.plan.choices, drift=drift, others=self.others, command=command)
        return judge, found

    def _judge(self, make: type[Judge]) -> Judge:
        return make(
            deployment=self.deployment,
            memory=self.runner.memory,
            profile=self.folder / PROFILE,
            seed=self.plan.seed,
        )

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
        room = memory.blocks * memory.block_size - reach.sequences * memory.block_size
        return design_iterations(self.spec, reach, kv_tokens=int(DESIGN_ROOM * max(room, memory.max_model_len)))

    def _measure_machine(self) -> None:
        machine, budget_s = self.kernels.machine(), self.plan.budget_s
        grid = cpu_grid(self.spec) if machine.is_cpu else gpu_grid(self.spec, machine.memory_bytes)
        ops_s, first_s = OPS_SHARE * budget_s, FIRST_SHARE * budget_s
        self.runner.warm_up()
        self.measurement.rounds(
            self.kernels, design(self.spec, grid), budget_s=ops_s, progress=self._part("measuring ops", 0, ops_s)
        )
        self.measurement.rounds(
            self.iterations,
            self.shapes,
            budget_s=first_s,
            progress=self._part("measuring iterations", ops_s, first_s),
        )
        self._write_profile()

    def _loads(self, sustained: Mapping[str, float]) -> dict[str, Workload]:
        """Return the workload at each load: shares of what the policy in the middle sustains."""
        own, middle = self.plan.workload, float(np.median(list(sustained.values())))
        return {name: own.scaled(share * middle / own.rate_per_s) for name, share in self.plan.loads.items()}

    def _replay(self, loads: Mapping[str, Workload]) -> None:
        cases = [(load, label) for load in loads for label in self.plan.choices]
        slice_s = (1 - OPS_SHARE - FIRST_SHARE) * self.plan.budget_s / (len(cases) + 1)
        for number, (load, label) in enumerate(cases):
            self._slice(slice_s)
            share = OPS_SHARE + FIRST_SHARE + (1 - OPS_SHARE - FIRST_SHARE) * number / len(cases)
            self.progress(f"replaying {load}, {label}", share)
            self._replay_quietly(load, label, loads[load])
        self._slice(slice_s)

    def _replay_quietly(self, load: str, label: str, workload: Workload) -> None:
        """Replay, and again where other programs took part of the machine, as long as there are retries."""
        folder = self.folder / MEASURED / load / label
        while True:
            choice = self.plan.choices[label]
            engine = Engine(self.runner, choice, seed=self.plan.seed)
            start_s, others_s = time.perf_counter(), hardware.others_busy_s()
            replay(engine, choice, workload, folder, model=self.plan.model)
            passed_s, after_s = time.perf_counter() - start_s, hardware.others_busy_s()
            if others_s is None or after_s is None:
                return
            self.others[load, label] = (after_s - others_s) / passed_s
            if self.others[load, label] <= QUIET or not self.retries:
                return
            self.retries -= 1

    def _slice(self, budget_s: float) -> None:
        self.slices.append(self.measurement.rounds(self.iterations, self.shapes, budget_s=budget_s))

    def _drift(self, loads: Mapping[str, Workload]) -> dict[tuple[str, str], float]:
        """Return how much longer iterations took just before and after each replay than in the median of all."""
        cases = [(load, label) for load in loads for label in self.plan.choices]
        around = zip(cases, self.slices, self.slices[1:], strict=False)
        return {case: self._slowness([before, after]) for case, before, after in around}

    def _slowness(self, slices: list[Mapping[OpShape, list[float]]]) -> float:
        ratios = [
            time_s / self.measurement.median_s(shape)
            for part in slices
            for shape, times_s in part.items()
            for time_s in times_s
        ]
        return float(np.median(ratios)) - 1

    def _write_profile(self) -> None:
        write_profile(self.folder / PROFILE, self.measurement.profile())

    def _part(self, label: str, done_s: float, part_s: float) -> Callable[[float, str], None]:
        return lambda share, _: self.progress(label, (done_s + share * part_s) / self.plan.budget_s)
