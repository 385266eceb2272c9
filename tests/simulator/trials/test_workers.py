"""Crews: who runs trials does not show in what comes out, and a process that dies takes nothing with it."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest

from simulator.trials.crew import Alone, as_plan, carry_out_all, carry_out_rounds
from simulator.trials.plan import TrialError, carry_out, in_steps, run_here, side_by_side
from simulator.trials.trial import Trial
from simulator.trials.workers import processes
from tests.simulator.trials.test_trials import TRIAL, sums


@dataclass(frozen=True, kw_only=True)
class Deadly(Trial):
    """Kills its process: always, or the first time, of which the file ``once`` then tells."""

    once: str | None = None

    def run(self):
        if self.once is None or not Path(self.once).exists():
            if self.once is not None:
                Path(self.once).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().run()


@dataclass(frozen=True, kw_only=True)
class Faulty(Trial):
    """Fails as only a defect does."""

    def run(self):
        raise ZeroDivisionError("nought")


def like(kind, trial, **more):
    return kind(candidate=trial.candidate, demand=trial.demand, rate_per_s=trial.rate_per_s, seed=trial.seed, **more)


def test_a_process_that_dies_is_replaced_and_a_trial_that_kills_two_is_given_up(tmp_path):
    good = [replace(TRIAL, seed=seed) for seed in range(3)]
    trials = [
        good[0], like(Deadly, TRIAL, once=str(tmp_path / "died")), like(Deadly, TRIAL), good[1],
        like(Faulty, TRIAL), good[2],
    ]  # fmt: skip
    seen = []
    with processes(2, lambda trial, answer: seen.append(answer)) as run:
        answers = run(trials)
    assert (tmp_path / "died").exists()
    expected = [each.as_dict() for each in run_here([good[0], TRIAL, good[1], good[2]])]
    assert [answers[place].as_dict() for place in (0, 1, 3, 5)] == expected
    assert all(isinstance(answers[place], TrialError) for place in (2, 4))
    assert "died 2 times (SIGKILL" in str(answers[2])
    assert TRIAL.candidate.label in str(answers[2])
    assert "ZeroDivisionError: nought" in str(answers[4])
    assert sorted(map(str, seen)) == sorted(map(str, answers))


def plans():
    trials = [replace(TRIAL, seed=seed) for seed in range(4)]
    steps = {"short": [trials[:1]], "long": [trials[1:3], [], trials[3:], trials[:2]], "none": [], "empty": [[]]}
    return {name: sums(each) for name, each in steps.items()}


def rounds():
    first = yield plans()
    second = yield {name: sums([[replace(TRIAL, seed=9)]]) for name, total in first.items() if total > 0}
    return first, second


def test_who_carries_out_plans_does_not_show_in_what_they_find():
    expected = carry_out(side_by_side(plans()))
    ended = []
    assert carry_out_all(plans(), Alone(), lambda name, result: ended.append(name)) == expected
    assert sorted(ended) == sorted(expected)
    with processes(2) as pool:
        found = carry_out_all(plans(), pool)
        assert found == expected
        assert list(found) == list(expected)
        assert carry_out_rounds(rounds(), pool) == carry_out(as_plan(rounds()))


class Reversed(Alone):
    """Answers the trial that it took last, and opens many plans at once."""

    places = 7

    def wait(self):
        self._taken.reverse()
        answers = super().wait()
        self._taken.reverse()
        return answers


def test_the_order_of_answers_does_not_show_in_what_plans_find():
    assert carry_out_all(plans(), Reversed()) == carry_out(side_by_side(plans()))


def test_trials_go_on_between_the_steps_of_a_plan_that_computes_by_itself():
    did = []

    class Noting(Alone):
        def start(self, ticket, trial):
            did.append(trial)
            super().start(ticket, trial)

    both = {"own": in_steps({step: partial(did.append, step) for step in range(3)}), "trials": sums([[TRIAL], [TRIAL]])}
    assert carry_out_all(both, Noting())["own"] == dict.fromkeys(range(3))
    assert did == [TRIAL, 0, TRIAL, 1, 2]
    assert carry_out(in_steps({"a": lambda: 1})) == {"a": 1}


PARENT = """
import sys, time
from dataclasses import replace
sys.path.insert(0, ".")
from tests.simulator.trials.test_trials import TRIAL
from simulator.trials.workers import processes
if __name__ == "__main__":
    with processes(2) as pool:
        pool([replace(TRIAL, seed=seed) for seed in range(2)])
        print(*[worker.process.pid for worker in pool._workers.values()], flush=True)
        pool([replace(TRIAL, demand=replace(TRIAL.demand, num_prompts=200_000)) for seed in range(2)])
"""


@pytest.mark.parametrize("number", [signal.SIGKILL])
def test_processes_end_with_the_one_that_began_them(tmp_path, number):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        children = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(children) == 2
        parent.send_signal(number)
        parent.wait()
    deadline = time.monotonic() + 20
    while any(alive(child) for child in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [child for child in children if alive(child)]


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
