"""The machine under an engine's runner: measured once, and watched while it serves."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path

import numpy as np
import torch

from engine import hardware
from engine.engine import Engine, Iteration
from engine.iterations import EngineIterations
from engine.kernels import TorchKernels
from engine.progress import Progress
from engine.replay import OnIteration, replay
from engine.runner import Runner
from engine.session import EngineSettings
from policies.catalog import PolicyChoice
from policies.costs import Costs
from profiler.deployment import Deployment
from profiler.grid import Grid, cpu_grid, design, gpu_grid
from profiler.iteration import OP as ITERATION
from profiler.iteration import design_iterations, kv_blocks
from profiler.kernels import OpShape
from profiler.measure import Measurement
from traces.errors import InputError
from traces.workload import FloatColumn, Workload

OPS_SHARE = 0.35
"""Of the measuring budget, what single ops get; the rest goes to whole iterations."""
PAUSE_EVERY_S, PAUSE_S = 0.5, 0.2
"""How often, by its own clock, a replay stands still for designed iterations, and for about how long."""
LIGHT_S = 0.15
"""Designed iterations longer than this are not run in a pause."""
DESIGN_ROOM = 0.9
"""Share of the KV cache that designed batches are drawn to fill at most; each of their requests ends in a block of its
own, so that a few are still too large and left out."""
TRIMMED = (0.05, 0.95)
"""Shares of the iterations in pauses between which they count as they are, and beyond which as those."""
Pause = Mapping[OpShape, list[float]]
"""The seconds of each run of the designed iterations of one pause."""
GPU_SHARE = 0.75
"""What model and KV cache take of a GPU by default; the operands of single ops want room beside them."""
LEAST_BUDGET_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Watched:
    """What was seen of the machine during a replay.

    Attributes
    ----------
    pauses
        What ran while the replay stood still.
    others
        Processors that other programs kept busy, on average; None where the system does not tell.
    """

    pauses: Sequence[Pause]
    others: float | None


class Machine:
    """Ops and designed iterations on one runner that nobody else uses.

    How fast a machine is changes: a neighbour takes cache and bandwidth, a clock rate falls. So every replay stands
    still now and then, its clock too, while designed iterations run: against what the same ones took when the machine
    was measured they tell how fast it was during each, whatever was replayed. They write over the KV of the requests
    in service, so that the tokens of these replays mean nothing; their number and their times do.

    Parameters
    ----------
    deployment
        What the runner is, for the largest batch to come.
    sequences
        Most sequences of a batch to come.

    Raises
    ------
    InputError
        If the KV cache is too small to measure anything.
    """

    def __init__(self, runner: Runner, deployment: Deployment, *, sequences: int) -> None:
        self.runner, self.deployment = runner, deployment
        self.kernels = TorchKernels(
            accelerator=runner.device.type, dtype=deployment.spec.dtype, threads=torch.get_num_threads()
        )
        self.spec = replace(deployment.spec, fused=self.kernels.fused)
        self.measurement = Measurement(self.kernels, self.spec, deployment.hardware)
        self.iterations = EngineIterations(runner)
        self.shapes = self._design(sequences)

    def _design(self, sequences: int) -> list[OpShape]:
        """Return iterations as large as those to come, and no larger."""
        memory = self.runner.memory
        reach = Grid(
            tokens=self.deployment.max_num_batched_tokens,
            sequences=sequences,
            context=memory.max_model_len,
            edge=0,
            kv_tokens=0,
        )
        room = int(DESIGN_ROOM * memory.blocks * memory.block_size)
        shapes = design_iterations(self.spec, reach, kv_tokens=room)
        fitting = [shape for shape in shapes if self.holds(shape)]
        if not fitting:
            what = f"{memory.blocks} KV blocks hold none of the batches by which iterations are measured"
            raise InputError(what, expected="more --num-gpu-blocks-override")
        return fitting

    def holds(self, shape: OpShape) -> bool:
        """Return whether the KV cache has room for a designed iteration."""
        memory = self.runner.memory
        return kv_blocks(shape, memory.block_size) <= memory.blocks

    def measure(self, budget_s: float, progress: Progress) -> None:
        """Time ops and designed iterations for about ``budget_s`` seconds."""
        machine = self.kernels.machine()
        grid = cpu_grid(self.spec) if machine.is_cpu else gpu_grid(self.spec, machine.memory_bytes)
        ops_s = OPS_SHARE * budget_s
        self.runner.warm_up()
        self.measurement.rounds(
            self.kernels,
            design(self.spec, grid),
            budget_s=ops_s,
            progress=lambda share, _: progress("measuring ops", share * OPS_SHARE),
        )
        self.measurement.rounds(
            self.iterations,
            self.shapes,
            budget_s=budget_s - ops_s,
            progress=lambda share, _: progress("measuring iterations", OPS_SHARE + share * (1 - OPS_SHARE)),
        )

    def replay(
        self,
        choice: PolicyChoice,
        workload: Workload,
        folder: Path,
        *,
        model: str,
        seed: int,
        usual_s: Mapping[OpShape, float],
        costs: Costs | None = None,
    ) -> Watched:
        """Serve ``workload`` under a policy, write the run record to ``folder``, and watch the machine.

        Parameters
        ----------
        usual_s
            Seconds of the designed iterations that may run in pauses.
        costs
            For a policy that asks how long batches take.

        Raises
        ------
        InputError
            If a request can never be served.
        """
        engine = Engine(self.runner, choice, seed=seed, costs=costs)
        pauses: list[Pause] = []
        start_s, others_s = time.perf_counter(), hardware.others_busy_s()
        replay(engine, choice, workload, folder, model=model, on_iteration=self._pausing(engine, usual_s, pauses))
        after_s, busy = hardware.others_busy_s(), None
        if others_s is not None and after_s is not None:
            busy = max(0.0, (after_s - others_s) / (time.perf_counter() - start_s))
        return Watched(pauses=pauses, others=busy)

    def _pausing(self, engine: Engine, usual_s: Mapping[OpShape, float], pauses: list[Pause]) -> OnIteration:
        """Return what is called after each iteration of a replay, and adds to ``pauses``."""
        light = [shape for shape, time_s in usual_s.items() if shape.op == ITERATION and time_s <= LIGHT_S]
        turns, paused_s = _turns(light), -PAUSE_EVERY_S

        def pause(iteration: Iteration) -> None:
            nonlocal paused_s
            if light and iteration.end_s - paused_s >= PAUSE_EVERY_S:
                paused_s = iteration.end_s
                with engine.clock.stopped():
                    pauses.append(self._pause(turns))

        return pause

    def _pause(self, turns: Iterator[OpShape]) -> Pause:
        clock = self.measurement.clock
        end_s, taken = clock() + PAUSE_S, dict[OpShape, list[float]]()
        while not taken or clock() < end_s:
            shape = next(turns)
            before = len(self.measurement.seconds(shape))
            self.measurement.visit(self.iterations, shape)
            taken.setdefault(shape, []).extend(self.measurement.seconds(shape)[before:])
        return taken


def _turns(shapes: Sequence[OpShape]) -> Iterator[OpShape]:
    """Yield ``shapes`` for ever, all of them before any comes again, in another order each time."""
    rng = np.random.default_rng(0)
    while shapes:
        yield from (shapes[index] for index in rng.permutation(len(shapes)))


def ratios(pauses: Sequence[Pause], usual_s: Mapping[OpShape, float]) -> FloatColumn:
    """Return the times of all iterations that ran in ``pauses`` over the usual ones, [iterations]."""
    return np.concatenate([np.asarray(times) / usual_s[shape] for pause in pauses for shape, times in pause.items()])


def drift_of(pauses: Sequence[Pause], usual_s: Mapping[OpShape, float]) -> float:
    """Return how much longer (+) than usual iterations took in ``pauses``, as a share.

    It is an average, without the twentieth at either end: requests wait for slow iterations too, which medians do not
    show.
    """
    own = ratios(pauses, usual_s)
    return float(np.clip(own, *np.quantile(own, TRIMMED)).mean()) - 1


def check_budget(budget_s: float) -> None:
    """Refuse a ``--budget`` in which nothing can be measured.

    Raises
    ------
    InputError
        If it is too short, or no number.
    """
    if not LEAST_BUDGET_S <= budget_s < inf:
        wish = f"at least {LEAST_BUDGET_S:g}, better a minute or more"
        raise InputError(f"{budget_s:g} seconds", where="--budget", expected=wish)


def beside_profiler(settings: EngineSettings) -> EngineSettings:
    """Return the settings with less memory for the KV cache, unless told how much: kernels are measured beside it.

    Raises
    ------
    InputError
        For a device by number: kernels are measured on the first.
    """
    if settings.device.startswith("cuda:"):
        what = f"{settings.device}: kernels are measured on the first GPU"
        raise InputError(what, where="--device", expected="cuda, with CUDA_VISIBLE_DEVICES to choose one")
    if settings.device == "cpu" or settings.gpu_memory_utilization is not None:
        return settings
    return replace(settings, gpu_memory_utilization=GPU_SHARE)
