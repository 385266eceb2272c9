"""What ``validate --policy`` does: serve what a search predicted about, under what it found best, and let it be
judged."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from engine.costs import known_costs
from engine.engine import Engine
from engine.machine import Machine, Watched, beside_profiler, drift_of
from engine.progress import Progress, share_bar
from engine.replay import check_lengths, deployment_of
from engine.runner import Runner
from engine.session import EngineSettings, build_runner
from engine.validation import MARKER, MEASURED, POLICY, WRITTEN, Judge, find_judge
from policies.catalog import PolicyChoice
from policies.prediction import Prediction
from profiler.deployment import Deployment
from profiler.iteration import OP as ITERATION
from profiler.iteration import shapes_of
from profiler.kernels import OpShape
from profiler.profile import read_profile
from traces.command_line import new_console
from traces.demand import Drawn
from traces.errors import InputError
from traces.files import whole_folder
from traces.settings import from_mapping
from traces.workload import Workload

HOLDS, FALLS_SHORT = 0, 1
"""Exit statuses of a prediction that was judged."""


@dataclass(frozen=True, kw_only=True)
class PolicySettings:
    """What a person asked of ``validate --policy``; each field is the option of that name.

    ``model`` is None where the prediction's own is meant.
    """

    policy: Path
    output: Path
    model: str | None = None
    repeats: int = 1

    def __post_init__(self) -> None:
        if self.repeats < 1:
            raise InputError(f"is {self.repeats}", where="--repeats", expected="an integer >= 1")


def validate_policy(
    settings: EngineSettings, asked: PolicySettings, prediction: Prediction, *, as_json: bool = False
) -> int:
    """Replay the workload of a prediction under its settings, and print and write whether it came true.

    Parameters
    ----------
    prediction
        That of ``asked.policy``.

    Returns
    -------
    int
        The exit status: 0 where what was predicted holds, 1 where it does not.

    Raises
    ------
    InputError
        If the prediction is not about one replica of this model on this device, or its workload or profile is not
        there; nothing is written then.
    """
    judge = find_judge()
    place = f"{asked.policy}, predicted"
    deployment = from_mapping(Deployment, prediction.deployment, where=f"{place}, deployment")
    _check(prediction, deployment, asked, settings, place=place)
    judge.check(prediction, where=place)
    drawn = Drawn.from_dict(prediction.workload, where=f"{place}, workload")
    workload, choices = drawn.workload(), [each.choice for each in prediction.settings]
    own = _engine_settings(settings, deployment, choices, workload, drawn.seed, asked)
    with whole_folder(asked.output, marker=MARKER, is_ours=lambda entry: entry.name in WRITTEN) as folder:
        runner = build_runner(beside_profiler(own), choices[0], longest=None, others=choices[1:])
        trial = PolicyTrial(runner, own, prediction, workload, folder, repeats=asked.repeats)
        shutil.copyfile(asked.policy, folder / POLICY)
        with share_bar() as progress:
            trial.replay(progress)
            progress("simulating and comparing", 1.0)
            judged, found = trial.judged_by(judge, shlex.join(["python", "-m", "engine", *sys.argv[1:]]))
    if as_json:
        print(json.dumps(found.as_dict(), indent=2))
    else:
        judged.show(found, console=new_console())
        print(f"Report: {asked.output / 'report.html'}")
    return HOLDS if found.holds else FALLS_SHORT


class PolicyTrial:
    """Replays of one workload under the settings of a prediction, in turns, on one runner that nobody else uses.

    The machine is watched during each (:class:`engine.machine.Machine`) by the designed iterations of the prediction's
    profile, as far as it is of this model and they fit the KV cache.

    Parameters
    ----------
    settings
        Those of the engine.
    folder
        Where ``measured`` is written; it exists.

    Raises
    ------
    InputError
        If a setting can never serve a request of the workload, or the profile is not there or broken.
    """

    def __init__(
        self,
        runner: Runner,
        settings: EngineSettings,
        prediction: Prediction,
        workload: Workload,
        folder: Path,
        *,
        repeats: int,
    ) -> None:
        self.runner, self.settings, self.prediction = runner, settings, prediction
        self.workload, self.folder, self.repeats = workload, folder, repeats
        choices = [each.choice for each in prediction.settings]
        self.costs = known_costs(runner, choices, settings.model, prediction.profile)
        for choice in choices:
            check_lengths(Engine(runner, choice, costs=self.costs), workload)
        self.deployment = deployment_of(runner, choices, settings.model)
        self._check_device()
        self.machine = Machine(runner, self.deployment, sequences=self.deployment.max_num_seqs)
        self.usual_s = self._profiled()
        self.watched: dict[str, list[Watched]] = {label: [] for label in prediction.labelled}

    def _check_device(self) -> None:
        own, foretold = self.deployment.device, str(self.prediction.deployment["device"])
        if self.runner.device.type != "cpu" and own != foretold:
            raise InputError(f"the GPU here is {own}", where="--device", expected=f"{foretold}, as predicted")

    def replay(self, progress: Progress) -> None:
        """Serve the workload under every setting, ``repeats`` times in turn, each time another one first."""
        labels = list(self.watched)
        count = len(labels)
        turns = [(turn, labels[(turn + place) % count]) for turn in range(self.repeats) for place in range(count)]
        for number, (turn, label) in enumerate(turns):
            progress(f"replaying {label}", number / len(turns))
            watched = self.machine.replay(
                self.prediction.labelled[label].choice,
                self.workload,
                self.folder / MEASURED / label / str(turn + 1),
                model=self.settings.model,
                seed=self.settings.seed,
                usual_s=self.usual_s,
                costs=self.costs,
            )
            self.watched[label].append(watched)

    def judged_by(self, make: type[Judge], command: str) -> tuple[Judge, Any]:
        """Return the judge, and what it says of the replays."""
        profile = None if self.prediction.profile is None else Path(self.prediction.profile)
        judge = make(deployment=self.deployment, memory=self.runner.memory, profile=profile, seed=self.settings.seed)
        found = judge.judge_policy(
            self.folder,
            self.prediction,
            self.workload,
            replays=self.repeats,
            drift=self._drift(),
            others=self._others(),
            command=command,
        )
        return judge, found

    def _profiled(self) -> dict[OpShape, float]:
        """Return the seconds of the profile's designed iterations, those that can be compared with."""
        path = self.prediction.profile
        if path is None or Path(path).is_file():
            return {}
        profile = read_profile(path)
        sizes = json.loads(json.dumps(asdict(self.machine.spec)))
        if {**profile.meta["sizes"], "name": ""} != {**sizes, "name": ""}:
            return {}
        rows = [row for row in profile.table.to_pylist() if row["op"] == ITERATION]
        found = dict(zip(shapes_of(rows), (row["time_s"] for row in rows), strict=True))
        return {shape: time_s for shape, time_s in found.items() if self.machine.holds(shape)}

    def _drift(self) -> dict[str, float]:
        pauses = {label: [pause for each in own for pause in each.pauses] for label, own in self.watched.items()}
        return {label: drift_of(own, self.usual_s) for label, own in pauses.items() if own}

    def _others(self) -> dict[str, float]:
        known = {label: [each.others for each in own if each.others is not None] for label, own in self.watched.items()}
        return {label: sum(own) / len(own) for label, own in known.items() if own}


def _check(
    prediction: Prediction, deployment: Deployment, asked: PolicySettings, settings: EngineSettings, *, place: str
) -> None:
    """Refuse what this engine is not."""
    if (prediction.replicas, deployment.gpus) != (1, 1):
        what = f"is about {prediction.replicas} replicas of {deployment.gpus} GPUs"
        raise InputError(what, where=place, expected="one replica on one device, which the engine is")
    if deployment.hardware.is_cpu != (settings.device == "cpu"):
        wish = f"--device {'cpu' if deployment.hardware.is_cpu else 'cuda'}"
        raise InputError(f"is about {deployment.device}", where=place, expected=wish)
    if asked.model is None:
        return
    other = replace(deployment, model=asked.model)
    if replace(other.spec, name="") != replace(deployment.spec, name=""):
        raise InputError(f"is about {deployment.spec.name}", where=place, expected=f"{asked.model}, as --model says")


def _engine_settings(
    settings: EngineSettings,
    deployment: Deployment,
    choices: list[PolicyChoice],
    workload: Workload,
    seed: int,
    asked: PolicySettings,
) -> EngineSettings:
    """Return the settings of an engine that is what the prediction is about."""
    context = deployment.max_model_len or int(workload.total_tokens.max())
    blocks = settings.num_gpu_blocks_override or _blocks(deployment, choices, context)
    model = deployment.model if isinstance(deployment.model, str) else deployment.spec.name
    return replace(
        settings,
        model=asked.model or model,
        dtype=deployment.dtype,
        block_size=deployment.block_size,
        max_model_len=context,
        num_gpu_blocks_override=blocks,
        seed=seed,
    )


def _blocks(deployment: Deployment, choices: list[PolicyChoice], context: int) -> int:
    """Return the KV blocks that were predicted with, but no more than residents can ever fill: those beyond change
    nothing."""
    each = -(-context // deployment.block_size)
    filled = max(
        each * choice.settings.max_num_seqs / (1 - getattr(choice.settings, "watermark", 0.0)) for choice in choices
    )
    return min(deployment.kv_blocks, int(filled) + each)
