"""Simulates what the engine measured, audits it, and judges."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from policies.arrivals import Arrivals
from policies.batch import Completion
from policies.blocks import KVMemory
from policies.catalog import PolicyChoice
from policies.prediction import Prediction
from profiler.cost_model import CostModel, load_cost_model
from profiler.deployment import Deployment
from simulator.clock import Clock
from simulator.cluster import Cluster
from simulator.flight import Flight
from simulator.replica import Replica
from simulator.simulation import Scenario, feed, simulate
from simulator.validation.audit import audit, write_audit
from simulator.validation.judgement import Trial, judged
from simulator.validation.policy_judge import PolicyJudge
from simulator.validation.policy_slo import slo_of
from simulator.validation.policy_validation import PolicyValidation
from simulator.validation.validation import Validation
from traces.errors import InputError
from traces.files import write_json
from traces.run_log import describe_workload
from traces.run_record import RunRecord, read_run
from traces.workload import Workload

if TYPE_CHECKING:
    from rich.console import Console

MARKER, REPORT = "validation.json", "report.html"
MEASURED, SIMULATED, AUDIT = "measured", "simulated", "audit"


class Judge:
    """Judges the simulator by what the engine measured.

    Parameters
    ----------
    deployment, memory
        What engine and simulator share. One pipeline stage: the engine's run records have one.
    profile
        A profile folder measured on this machine; None for the coefficients that ship with the package.
    seed
        Of the simulations.
    cost_model
        Instead of the one that is fitted to ``profile``.
    told
        The cost model that the engine's policies knew, where it was another than is simulated with.

    Raises
    ------
    InputError
        If the profile is broken or measures another device.
    """

    def __init__(
        self,
        *,
        deployment: Deployment,
        memory: KVMemory,
        profile: Path | None,
        seed: int,
        cost_model: CostModel | None = None,
        told: CostModel | None = None,
    ) -> None:
        if deployment.pipeline_parallel_size != 1:
            raise ValueError(f"{deployment.pipeline_parallel_size} pipeline stages; expected 1")
        self._deployment, self._memory, self._seed = deployment, memory, seed
        self._cost_model = load_cost_model(deployment, profile=profile) if cost_model is None else cost_model
        self._told = told or self._cost_model

    def saturation(self, workload: Workload, choices: Mapping[str, PolicyChoice]) -> dict[str, float]:
        """Return the requests/s that each policy finishes when all requests of ``workload`` are there at once.

        That is the highest rate it can sustain on this mix of lengths, a little too low: at the end the last
        sequences decode in ever smaller batches, so that the rate falls short by up to the time of the longest
        output over the whole time. More requests make that smaller.
        """
        at_once = replace(workload, arrival_s=np.zeros(len(workload)))
        return {label: len(workload) / self._makespan_s(at_once, choice) for label, choice in choices.items()}

    def _makespan_s(self, workload: Workload, choice: PolicyChoice) -> float:
        ended_s = 0.0

        def note(flight: Flight, _done: Completion) -> None:
            nonlocal ended_s
            ended_s = flight.ends_s[-1]

        clock, arrivals = Clock(), Arrivals(workload, self._memory.block_size)
        policy = choice.build(self._memory, costs=self._told)
        replica = Replica(clock, policy, self._cost_model, note, ahead_s=lambda: arrivals.ahead_s(1))
        feed(clock, arrivals, replica.submit)
        clock.run()
        return ended_s

    def judge(
        self,
        folder: Path,
        workloads: Mapping[str, Workload],
        choices: Mapping[str, PolicyChoice],
        *,
        drift: Mapping[tuple[str, str], float] | None = None,
        others: Mapping[tuple[str, str], float] | None = None,
        command: str = "",
    ) -> Validation:
        """Simulate and audit every measured run of ``folder``, and say how well they agree.

        Reads ``measured/LOAD/POLICY`` and measures nothing, so that it can be done again at any time. Writes
        ``simulated/LOAD/POLICY``, ``audit/LOAD/POLICY.parquet``, ``report.html`` and, last, ``validation.json``.

        Parameters
        ----------
        workloads
            What was served, by load. They are shown and judged in order of their rates, the lowest first.
        choices
            Under which policies, by label.
        drift
            (load, policy) -> how much longer (+) iterations took on average during that replay than in the profile,
            as a share, measured on other batches than the replay's. What is simulated is the machine as it was: the
            cost model's times, longer by that share.
        others
            (load, policy) -> processors that other programs kept busy during that replay, on average. Printed too.
        command
            The command line that makes the folder again, to show in the report.

        Raises
        ------
        InputError
            If a measured run is missing, broken, or of another workload, policy or KV memory; nothing is written
            then.
        """
        from simulator.validation.report import write_report

        if not workloads or not choices:
            raise ValueError("a validation needs at least one load and one policy")
        workloads = dict(sorted(workloads.items(), key=lambda item: item[1].rate_per_s))
        measured = self._measured(folder, workloads, choices)
        trials = list(self._trials(folder, measured, workloads, choices, drift or {}))
        validation = judged(trials, drift or {}, others or {}, self._provenance(trials, workloads, choices, command))
        write_report(folder / REPORT, validation, trials)
        write_json(folder / MARKER, validation.as_dict())
        return validation

    @staticmethod
    def check(prediction: Prediction, *, where: str) -> None:
        """Refuse a prediction, which comes from ``where``, that :meth:`judge_policy` could not judge.

        Raises
        ------
        InputError
            If its SLO cannot be read.
        """
        slo_of(prediction, where=where)

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
    ) -> PolicyValidation:
        """Say whether what a search predicted of its best settings is what was measured under them.

        Reads ``measured/LABEL/1`` to ``measured/LABEL/REPLAYS``, by the labels of the prediction's settings. Writes
        ``report.html`` and, last, ``validation.json``. ``drift`` and ``others`` are as :meth:`judge` has them, by
        label.

        Raises
        ------
        InputError
            If the SLO cannot be read, or a measured run is missing, broken, or of another workload, policy or KV
            memory; nothing is written then.
        """
        from simulator.validation.policy_report import write_policy_report

        slo = slo_of(prediction)
        runs = {
            label: [
                self._run(folder / MEASURED / label / str(turn), workload, foretold.choice)
                for turn in range(1, replays + 1)
            ]
            for label, foretold in prediction.labelled.items()
        }
        judge = PolicyJudge(
            deployment=self._deployment,
            memory=self._memory,
            cost_model=self._cost_model,
            seed=self._seed,
            workload=workload,
            goodput=slo.goodput if slo else None,
            slo=slo,
        )
        validation = judge.judged(prediction, runs, drift or {}, others or {}, command)
        write_policy_report(folder / REPORT, validation)
        write_json(folder / MARKER, validation.as_dict())
        return validation

    def show(self, validation: Validation | PolicyValidation, *, console: Console) -> None:
        """Print the tables, and under them what holds and what falls short, in words."""
        from simulator.validation.table import print_policy_validation, print_validation

        if isinstance(validation, PolicyValidation):
            print_policy_validation(validation, console)
        else:
            print_validation(validation, console)

    def _measured(
        self, folder: Path, workloads: Mapping[str, Workload], choices: Mapping[str, PolicyChoice]
    ) -> dict[tuple[str, str], RunRecord]:
        return {
            (load, label): self._run(folder / MEASURED / load / label, workload, choice)
            for load, workload in workloads.items()
            for label, choice in choices.items()
        }

    def _run(self, path: Path, workload: Workload, choice: PolicyChoice) -> RunRecord:
        run = read_run(path)
        self._check(run, workload, choice, path)
        return run

    def _check(self, run: RunRecord, workload: Workload, choice: PolicyChoice, path: Path) -> None:
        """Refuse a run that is not what is to be simulated."""
        requests, meta = run.requests, run.meta
        columns = ("arrival_s", "prompt_tokens", "output_tokens")
        if not all(np.array_equal(getattr(requests, name), getattr(workload, name)) for name in columns):
            raise InputError("served other requests", where=path, expected=f"those of {workload.name}")
        if meta.policy != {"name": choice.name, **asdict(choice.settings)}:
            raise InputError(f"ran under {meta.policy}", where=path, expected=f"{choice.as_dict()}")
        if (meta.kv_blocks, meta.block_size) != (self._memory.blocks, self._memory.block_size):
            what = f"had {meta.kv_blocks} KV blocks of {meta.block_size}"
            raise InputError(what, where=path, expected=f"{self._memory.blocks} of {self._memory.block_size}")
        if (meta.stages, meta.replicas) != (1, 1):
            raise InputError(f"has {meta.stages} stages, {meta.replicas} replicas", where=path, expected="one of each")

    def _trials(
        self,
        folder: Path,
        measured: Mapping[tuple[str, str], RunRecord],
        workloads: Mapping[str, Workload],
        choices: Mapping[str, PolicyChoice],
        drift: Mapping[tuple[str, str], float],
    ) -> Iterator[Trial]:
        for (load, label), run in measured.items():
            cost_model = self._cost_model.at_pace(1 + drift.get((load, label), 0.0))
            yield self._trial(folder, load, label, run, workloads[load], choices[label], cost_model)

    def _trial(
        self,
        folder: Path,
        load: str,
        label: str,
        run: RunRecord,
        workload: Workload,
        choice: PolicyChoice,
        cost_model: CostModel,
    ) -> Trial:
        scenario = Scenario(
            workload=workload,
            cluster=Cluster.single(self._deployment, cost_model, self._memory, told=self._told),
            seed=self._seed,
        )
        simulate(scenario, choice, folder / SIMULATED / load / label)
        columns = audit(run.iterations, workload, choice, self._memory, cost_model, told=self._told)
        write_audit(folder / AUDIT / load / f"{label}.parquet", columns)
        simulated = read_run(folder / SIMULATED / load / label)
        return Trial(load=load, policy=label, measured=run, simulated=simulated, audit=columns)

    def _provenance(
        self,
        trials: list[Trial],
        workloads: Mapping[str, Workload],
        choices: Mapping[str, PolicyChoice],
        command: str,
    ) -> dict[str, Any]:
        first = trials[0].measured.meta
        return {
            "deployment": first.groups[0].deployment,
            "versions": first.versions,
            "simulated_with": trials[0].simulated.meta.versions,
            "kv_blocks": first.kv_blocks,
            "block_size": first.block_size,
            "seed": self._seed,
            "cost_model": self._cost_model.describe(),
            "workloads": {load: describe_workload(workload) for load, workload in workloads.items()},
            "policies": {label: choice.as_dict() for label, choice in choices.items()},
            "command": command,
        }
