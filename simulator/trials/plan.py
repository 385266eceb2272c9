"""Plans: what to simulate next, decided by what came out so far, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import TypeVar

from simulator.trials.outcome import Outcome
from simulator.trials.trial import Trial
from traces.errors import InputError

Name = TypeVar("Name")
Result = TypeVar("Result")


class TrialError(InputError):
    """A trial was not answered: processes died over it, or the program failed. Nobody keeps that for an answer: with
    more memory, or fewer processes, there may be one."""


Answer = Outcome | InputError
"""What came out of a trial, or why it cannot run."""
Plan = Generator[Sequence[Trial], Sequence[Answer], Result]
"""Yields trials that may run side by side, is sent their answers in the same order, and returns what it found.

It knows no clock and no random draw but by seed, so that equal answers lead to equal results: however many processes
run the trials, and whether their answers come from a simulation or from a journal. What it computes itself should be
short, or be done in steps (:func:`in_steps`): others wait for it.
"""
Runner = Callable[[Sequence[Trial]], Sequence[Answer]]
"""Runs trials and returns their answers in order."""


def run_here(trials: Sequence[Trial]) -> list[Answer]:
    """Run trials in this process, one after the other."""
    return [answer(trial) for trial in trials]


def answer(trial: Trial) -> Answer:
    """Return what comes out of a trial, or the error in its input."""
    try:
        return trial.run()
    except InputError as error:
        return error


def carry_out(plan: Plan[Result], runner: Runner = run_here) -> Result:
    """Run a plan to its end and return what it found."""
    try:
        trials = next(plan)
        while True:
            trials = plan.send(runner(trials))
    except StopIteration as end:
        result: Result = end.value
        return result


def in_steps(parts: Mapping[Name, Callable[[], Result]]) -> Plan[dict[Name, Result]]:
    """Return the plan that computes several things by itself, one a step, and asks for no trials."""
    found: dict[Name, Result] = {}
    for name, part in parts.items():
        yield ()
        found[name] = part()
    return found


def side_by_side(plans: Mapping[str, Plan[Result]]) -> Plan[dict[str, Result]]:
    """Return the plan that carries out several, in turns: each turn holds a step of every plan that is not over."""
    results: dict[str, Result] = {}
    asked: dict[str, Sequence[Trial]] = {}

    def advance(name: str, answers: Sequence[Answer] | None) -> None:
        plan = plans[name]
        try:
            asked[name] = next(plan) if answers is None else plan.send(answers)
        except StopIteration as end:
            asked.pop(name, None)
            results[name] = end.value

    for name in plans:
        advance(name, None)
    while asked:
        answers = list((yield [trial for trials in asked.values() for trial in trials]))
        for name, trials in list(asked.items()):
            own, answers = answers[: len(trials)], answers[len(trials) :]
            advance(name, own)
    return {name: results[name] for name in plans}
