"""Measuring what the simulator is to be judged by: the machine, and a workload under every policy and load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from engine.costs import known_costs
from engine.engine import Engine
from engine.machine import Machine, Pause, drift_of, ratios
from engine.progress import Progress
from engine.replay import check_lengths, deployment_of
from engine.runner import Runner
from policies.blocks import KVMemory
from policies.catalog import PolicyChoice
from policies.prediction import Prediction
from profiler.cost_model import CostModel, load_cost_model
from profiler.deployment import Deployment
from profiler.kernels import OpShape
from profiler.profile import write_profile
from traces.errors import InputError
from traces.files import write_json
from traces.workload import Workload

ENTRY_POINTS = "charioteer.validation"
"""The group of entry points under which a simulator announces its :class:`Judge`."""
PROFILE, MEASURED, PAUSES, POLICY = "profile", "measured", "pauses.json", "policy.json"
MARKER = "validation.json"
WRITTEN = (MARKER, "report.html", PROFILE, MEASURED, PAUSES, POLICY, "simulated", "audit")
"""What a validation of either kind leaves in its folder."""
MEASURING_SHARE = 0.25
"""Of the progress bar, for measuring the machine before anything is replayed."""
Case = tuple[str, str]
"""A load and a policy."""


class Judge(Protocol):
    """What simulates, and says how close that comes to what was measured.

    Made as ``Judge(deployment=..., memory=..., profile=..., seed=...)``: what runs where, the KV cache that
    policies fill, the folder of a profile of this machine (None: what ships with the package), and the cost model that
    policies knew when they were measured, if that was another.
    """

    def __init__(
        self,
        *,
        deployment: Deployment,
        memory: KVMemory,
        profile: Path | None,
        seed: int,
        told: CostModel | None = None,
    ) -> None: ...

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

    @staticmethod
    def check(prediction: Prediction, *, where: str) -> None:
        """Refuse a prediction, which comes from ``where``, that :meth:`judge_policy` could not judge."""
        ...

    def judge_policy(
        self,
        folder: Path,
        prediction: Prediction,
        workload: Workload,
        *,
        replays: int = 1,
        drift: Mapping[str, float] | None = None,
        others: Mapping[str, float] | None = None,
        command: str = "",
    ) -> Any:
        """Compare what a search predicted of its settings with their replays in ``folder/measured``, and report.

        Writes ``validation.json`` and ``report.html`` beside it; what it returns says whether the prediction ``holds``.
        """
        ...

    def show(self, validation: Any, *, console: Any) -> None:
        """Print what :meth:`judge` or :meth:`judge_policy` returned."""
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

    The machine is watched during each replay (:class:`engine.machine.Machine`; ``pauses.json`` keeps what was seen).
    With its pace divided out, what ran in pauses goes into the profile, which is so of the machine as it was before.

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
        asked = any(choice.needs_costs for choice in plan.choices.values())
        guess = load_cost_model(self.deployment) if asked else None
        for choice in plan.choices.values():
            check_lengths(Engine(runner, choice, costs=guess), plan.workload)
        self.costs: CostModel | None = None
        sequences = min(self.deployment.max_num_seqs, len(plan.workload))
        self.machine = Machine(runner, self.deployment, sequences=sequences)
        self.before_s: dict[OpShape, float] = {}
        self.samples: dict[Case, Sequence[Pause]] = {}
        self.others: dict[Case, float] = {}

    def judged_by(self, make: type[Judge], command: str) -> tuple[Judge, Any]:
        """Measure all there is to measure; return the judge and what it found."""
        self._measure_machine()
        judge = self._judge(make)
        self.costs = known_costs(self.runner, self.plan.choices.values(), self.plan.model, self.folder / PROFILE)
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
            return make(
                deployment=self.deployment, memory=memory, profile=profile, seed=self.plan.seed, told=self.costs
            )
        except InputError as error:
            what = f"what was measured in {self.plan.budget_s:g} seconds cannot be fitted"
            raise InputError(what, where="--budget", expected="a minute or more") from error

    def _measure_machine(self) -> None:
        self.machine.measure(self.plan.budget_s, lambda label, share: self.progress(label, MEASURING_SHARE * share))
        self.before_s = self.machine.measurement.medians_s()
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
        watched = self.machine.replay(
            self.plan.choices[label],
            workload,
            self.folder / MEASURED / load / label,
            model=self.plan.model,
            seed=self.plan.seed,
            usual_s=self.before_s,
            costs=self.costs,
        )
        self.samples[case] = watched.pauses
        if watched.others is not None:
            self.others[case] = watched.others

    def _drift(self) -> dict[Case, float]:
        """Return how much longer iterations took during each replay than in the profile, and complete the profile.

        A median tells how fast the machine was: pauses go into the profile with theirs divided out.
        """
        paused = {case: pauses for case, pauses in self.samples.items() if pauses}
        for pauses in paused.values():
            pace = float(np.median(ratios(pauses, self.before_s)))
            for pause in pauses:
                self.machine.measurement.correct(pause, pace)
        self._write_profile()
        profiled_s = self.machine.measurement.medians_s()
        return {case: drift_of(pauses, profiled_s) for case, pauses in paused.items()}

    def _write_profile(self) -> None:
        write_profile(self.folder / PROFILE, self.machine.measurement.profile())

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
