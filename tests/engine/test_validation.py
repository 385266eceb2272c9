"""``engine validate``: measured, simulated and judged in one go, on a tiny model."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="the engine needs torch")

import engine.validation as validation
from engine import hardware, machine
from engine.__main__ import app
from engine.clock import WallClock
from engine.engine import Engine
from engine.validate_command import parse_loads
from engine.validation import Plan, Trial, find_judge
from policies import choose
from profiler.profile import read_profile
from simulator.validation import Judge
from traces.errors import InputError
from traces.run_record import read_run
from traces.workload import Workload

POLICIES = ("orca", "sarathi-serve:max_num_batched_tokens=32")
LABELS = ("orca", "sarathi-serve-32")


@pytest.fixture
def engine(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """engine(*arguments) -> exit status, standard output and standard error, within this process."""

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        try:
            app(args=[str(argument) for argument in arguments], prog_name="engine")
            status: Any = 0
        except SystemExit as ended:
            status = ended.code
        return int(status or 0), *capfd.readouterr()

    return call


def asked(model: Path | str, output: Path, **changes: str) -> list[str]:
    options = {
        "--model": str(model),
        "--output": str(output),
        "--policies": ",".join(POLICIES),
        "--loads": "below:0.5,above:2",
        "--num-prompts": "6",
        "--length-scale": "0.01",
        "--budget": "3",
        "--max-num-seqs": "4",
    }
    given = {**options, **{f"--{key.replace('_', '-')}": value for key, value in changes.items()}}
    return ["validate", "chat", *(word for pair in given.items() for word in pair)]


def test_the_simulator_that_is_installed_judges() -> None:
    assert find_judge() is Judge


def test_a_validation_leaves_everything_that_it_stands_on(
    tiny_folder: Path, tmp_path: Path, engine: Callable[..., tuple[int, str, str]]
) -> None:
    output = tmp_path / "validation"
    status, printed, _ = engine(*asked(tiny_folder, output))
    assert status == 0
    assert f"Report: {output}" in printed
    profile = read_profile(output / "profile")
    ops = profile.table["op"].to_pylist()
    assert ops.count("iteration") > 16
    assert profile.meta["sizes"]["fused"] is False
    for load in ("below", "above"):
        for label in LABELS:
            measured, simulated = (read_run(output / source / load / label) for source in ("measured", "simulated"))
            assert np.array_equal(measured.requests.output_tokens, simulated.requests.generated_tokens)
            assert np.array_equal(measured.requests.arrival_s, simulated.requests.arrival_s)
            assert (output / "audit" / load / f"{label}.parquet").is_file()
    found = json.loads((output / "validation.json").read_text(encoding="utf-8"))
    assert found["provenance"]["command"].startswith("python -m engine")
    page = (output / "report.html").read_text(encoding="utf-8")
    assert "sarathi-serve-32" in page
    assert not re.search(r'src="http', page)


def test_loads_are_shares_of_what_the_policies_sustain(make_engine: Callable[..., Engine], tmp_path: Path) -> None:
    runner = make_engine(blocks=200).runner
    own = Workload(name="own", arrival_s=np.arange(5) / 4, prompt_tokens=np.full(5, 9), output_tokens=np.full(5, 3))
    plan = Plan(
        workload=own,
        choices={"a": choose("orca"), "b": choose("vllm-v1"), "c": choose("sarathi-serve")},
        loads={"half": 0.5, "double": 2.0},
        model="llama-60m",
        seed=0,
        budget_s=1.0,
    )
    trial = Trial(runner, plan, tmp_path, lambda *_: None)
    loads = trial._loads({"a": 1.0, "b": 10.0, "c": 100.0})
    assert {name: load.rate_per_s for name, load in loads.items()} == pytest.approx({"half": 5.0, "double": 20.0})


def test_what_is_measured_goes_to_the_judge_unchanged(make_engine: Callable[..., Engine], tmp_path: Path) -> None:
    """One policy, one load: the profile is written before it is needed, and replays lie where they belong."""
    seen: dict[str, Any] = {}

    class Witness:
        def __init__(self, *, deployment: Any, memory: Any, profile: Path, seed: int, told: Any = None) -> None:
            seen["rows"] = read_profile(profile).table.num_rows

        def saturation(self, workload: Workload, choices: Mapping[str, Any]) -> dict[str, float]:
            return dict.fromkeys(choices, 50.0)

        def judge(self, folder: Path, workloads: Any, choices: Any, *, drift: Any, others: Any, command: str) -> str:
            seen["run"] = read_run(folder / "measured" / "only" / "a")
            seen["drift"], seen["others"] = drift, others
            return command

        def show(self, validation: Any, *, console: Any) -> None: ...

    own = Workload(name="own", arrival_s=np.arange(5) / 4, prompt_tokens=np.full(5, 9), output_tokens=np.full(5, 3))
    plan = Plan(
        workload=own, choices={"a": choose("orca")}, loads={"only": 1.0}, model="llama-60m", seed=0, budget_s=2.0
    )
    trial = Trial(make_engine(blocks=400).runner, plan, tmp_path, lambda *_: None)
    _, found = trial.judged_by(Witness, "the command")
    assert found == "the command"
    assert seen["rows"] == len(trial.before_s) > 0
    pauses, profiled_s = trial.samples["only", "a"], trial.machine.measurement.medians_s()
    ratios = [time_s / profiled_s[shape] for pause in pauses for shape, times in pause.items() for time_s in times]
    mean = np.clip(ratios, *np.quantile(ratios, (0.05, 0.95))).mean()
    assert seen["drift"] == {("only", "a"): pytest.approx(mean - 1)}
    kept = json.loads((tmp_path / "pauses.json").read_text(encoding="utf-8"))
    assert kept["replays"][0]["drift"] == seen["drift"]["only", "a"]
    assert sum(len(times) for pause in kept["replays"][0]["pauses"] for times in pause.values()) == len(ratios)
    assert seen["run"].requests.generated_tokens.tolist() == [3] * 5


def test_a_replay_stands_still_for_designed_iterations(
    make_engine: Callable[..., Engine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are timed while the replay's clock stands still, and by them it is known how slow the machine was."""
    monkeypatch.setattr(machine, "PAUSE_EVERY_S", 0.0)
    monkeypatch.setattr(machine, "PAUSE_S", 0.2)
    own = Workload(name="own", arrival_s=np.zeros(2), prompt_tokens=np.full(2, 9), output_tokens=np.full(2, 5))
    plan = Plan(
        workload=own, choices={"a": choose("orca")}, loads={"only": 1.0}, model="llama-60m", seed=0, budget_s=2.0
    )
    trial = Trial(make_engine(blocks=400).runner, plan, tmp_path, lambda *_: None)
    trial._measure_machine()
    trial._replay_case(("only", "a"), own)
    run = read_run(tmp_path / "measured" / "only" / "a")
    pauses = trial.samples["only", "a"]
    assert len(pauses) == len(run.iterations.start_s)
    assert all(shape.op == "iteration" and times for pause in pauses for shape, times in pause.items())
    assert {shape for pause in pauses for shape in pause} <= set(trial.before_s)
    before_s = dict(trial.before_s)
    slow = {shape: 1.5 * time_s for shape, time_s in before_s.items() if shape.op == "iteration"}
    for shape, time_s in slow.items():
        trial.machine.measurement._samples[shape].seconds[:] = [before_s[shape]] * 3 + [time_s]
    trial.samples["only", "a"] = [{shape: [time_s] for shape, time_s in slow.items()}]
    assert trial._drift() == {("only", "a"): pytest.approx(0.5)}
    assert all(
        trial.machine.measurement._samples[shape].seconds == pytest.approx([before_s[shape]] * 4) for shape in slow
    )


def test_a_clock_that_is_stopped_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    world_s = iter([10.0, 12.0, 99.0, 100.0])
    monkeypatch.setattr("engine.clock.time.perf_counter", lambda: next(world_s))
    clock = WallClock()
    with clock.stopped():
        pass
    assert clock.now_s() == 3.0


def test_the_clock_of_a_replay_stands_still_in_its_pauses(
    make_engine: Callable[..., Engine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything that runs in pauses runs while the replay's own clock is stopped."""
    stopped: list[bool] = [False]
    seen: list[bool] = []

    class Watched(WallClock):
        @contextmanager
        def stopped(self) -> Iterator[None]:
            stopped[0] = True
            with super().stopped():
                yield
            stopped[0] = False

    monkeypatch.setattr(machine, "PAUSE_EVERY_S", 0.0)
    monkeypatch.setattr(machine, "PAUSE_S", 0.01)
    monkeypatch.setattr("engine.engine.WallClock", Watched)
    own = Workload(name="own", arrival_s=np.zeros(2), prompt_tokens=np.full(2, 9), output_tokens=np.full(2, 5))
    plan = Plan(
        workload=own, choices={"a": choose("orca")}, loads={"only": 1.0}, model="llama-60m", seed=0, budget_s=2.0
    )
    trial = Trial(make_engine(blocks=400).runner, plan, tmp_path, lambda *_: None)
    trial._measure_machine()
    seconds = trial.machine.iterations.seconds
    monkeypatch.setattr(trial.machine.iterations, "seconds", lambda *args: (seen.append(stopped[0]), seconds(*args))[1])
    trial._replay_case(("only", "a"), own)
    assert seen
    assert all(seen)


@pytest.mark.parametrize("blocks", [16, 20, 100])
@pytest.mark.parametrize("max_num_seqs", [1, 64])
def test_no_designed_iteration_is_larger_than_the_kv_cache(
    make_engine: Callable[..., Engine], tmp_path: Path, blocks: int, max_num_seqs: int
) -> None:
    runner = make_engine(blocks=blocks).runner
    own = Workload(name="own", arrival_s=np.arange(64.0), prompt_tokens=np.full(64, 9), output_tokens=np.full(64, 3))
    choices = {"a": choose("orca", max_num_seqs=max_num_seqs)}
    plan = Plan(workload=own, choices=choices, loads={"only": 1.0}, model="llama-60m", seed=0, budget_s=1.0)
    trial = Trial(runner, plan, tmp_path, lambda *_: None)
    assert trial.machine.shapes
    for shape in trial.machine.shapes:
        assert trial.machine.iterations.prepare(shape)() > 0  # type: ignore[operator]


def test_a_request_that_no_policy_can_serve_is_named_before_anything_is_measured(
    make_engine: Callable[..., Engine], tmp_path: Path
) -> None:
    own = Workload(name="own", arrival_s=np.arange(2.0), prompt_tokens=np.array([9, 900]), output_tokens=np.full(2, 3))
    plan = Plan(
        workload=own, choices={"a": choose("orca")}, loads={"only": 1.0}, model="llama-60m", seed=0, budget_s=1.0
    )
    with pytest.raises(InputError, match="own, request 2"):
        Trial(make_engine(blocks=20).runner, plan, tmp_path, lambda *_: None)
    assert not list(tmp_path.iterdir())


def test_other_programs_are_seen_where_the_system_tells(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before_s = hardware.others_busy_s()
    if before_s is not None:
        subprocess.run([sys.executable, "-c", "sum(i * i for i in range(3_000_000))"], check=True)
        after_s = hardware.others_busy_s()
        assert after_s is not None
        assert after_s > before_s
    monkeypatch.setattr(hardware, "CPU_TIMES", tmp_path / "nowhere")
    assert hardware.others_busy_s() is None


@pytest.mark.parametrize("text", ["", "below", "below:0", "below:-1", "below:inf", "a:1,a:2", "a/b:1", "below:x"])
def test_loads_that_are_none_are_an_input_error(text: str) -> None:
    with pytest.raises(InputError, match="--loads"):
        parse_loads(text)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"policies": "orca,nonsense"}, "nonsense"),
        ({"policies": "orca,orca"}, "twice"),
        ({"loads": "below"}, "--loads"),
        ({"budget": "0"}, "--budget"),
        ({"budget": "inf"}, "--budget"),
        ({"length_scale": "0"}, "--length-scale"),
        ({"length_scale": "2"}, "length factor 2"),
        ({"model": "no-such-model"}, "no-such-model"),
        ({"num_prompts": "1"}, "two arrival times"),
    ],
)
def test_wrong_wishes_leave_nothing(tiny_folder: Path, tmp_path: Path, changes: dict[str, str], what: str) -> None:
    words = asked(**{"model": tiny_folder, "output": tmp_path / "validation", **changes})
    with pytest.raises(InputError, match=what):
        app(args=words, prog_name="engine", standalone_mode=False)
    assert not list(tmp_path.iterdir())


def test_a_wrong_wish_is_one_line(tiny_folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "engine", *asked(tiny_folder, tmp_path / "validation", budget="0")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: --budget")
    assert len(done.stderr.strip().splitlines()) == 1


def test_without_a_simulator_there_is_nothing_to_validate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validation, "entry_points", lambda **_: [])
    with pytest.raises(InputError, match="no simulator is installed"):
        find_judge()
