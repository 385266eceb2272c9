"""The measuring plan: which shape to measure next, and which again, until the time is up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from math import hypot, isfinite, log, sqrt
from statistics import stdev
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from profiler.candidates import Candidates, grouped
from profiler.iteration_share import IterationShare
from profiler.surrogate import Surrogate, taken_away
from traces.errors import InputError

if TYPE_CHECKING:
    from profiler.kernels import OpShape, Timed
    from profiler.measure import Measurement, Progress, Samples
    from profiler.model import Model

LEAST_SURE, REPEAT = "least sure", "repeat"
ROUND_SHARE = 0.08
"""Of the budget, what is chosen at once; then the models are fitted anew."""
FIRST_NOISE, LEAST_NOISE, MOST_NOISE = 0.03, 0.003, 0.5
"""Relative scatter from one visit to the next, until shapes that were visited twice tell."""
REVISITED = 8
"""Shapes of the first choice that are visited again, to learn that scatter."""
FEWEST_POINTS = 4
SHORTEST_S = 1e-9
"""What no visit is taken to fall below: a clock may not have moved."""
CALLS = 4
"""Calls of a first visit, the one before it is timed among them."""
QUARTILE = 0.6745
"""Half the range of the middle half of a normal distribution, in standard deviations."""
MEDIAN_LOSS = 1.25
"""The standard error of a median in that of a mean."""


class Choice(NamedTuple):
    """A shape to measure, why, how much variance of an iteration's time that takes away a second, and its cost."""

    shape: OpShape
    why: str
    value: float
    cost_s: float


class MeasuringPlan:
    """Spends a budget on the shapes of some ops, in rounds.

    First the start of the candidates is measured, the shortest shapes first. Then, round by round, a small model is
    fitted to each op's times so far (:class:`profiler.surrogate.Surrogate`), and the time goes where it takes away
    the most variance of an iteration's time a second: to new shapes of which the model is not sure, or again to
    shapes whose times scatter, or that were visited once and surprised it. The same measurements give the same choices.

    Parameters
    ----------
    measurement, timed
        Where samples pile up, and what is timed.
    candidates
        What there is to measure.
    model, tp
        Whose iterations the ops are part of, on each of ``tp`` GPUs.
    seed
        Of the order within a round.
    """

    def __init__(
        self,
        measurement: Measurement,
        timed: Timed,
        candidates: Candidates,
        model: Model,
        *,
        tp: int = 1,
        seed: int = 0,
    ) -> None:
        self._measurement, self._timed, self._model, self._tp = measurement, timed, model, tp
        self._start, self._pool = candidates.start, list(candidates.pool)
        self._known: dict[OpShape, Samples] = {}
        self._rng = np.random.default_rng(seed)

    def run(self, budget_s: float, progress: Progress = lambda *_: None) -> None:
        """Measure for about ``budget_s`` seconds; each round, with what it was for, is noted in the profile.

        Raises
        ------
        InputError
            If there is no budget.
        """
        if not budget_s > 0:
            raise InputError(f"{budget_s} seconds", where="--budget", expected="more than 0")
        end_s = self._measurement.clock() + budget_s
        shortest_first = sorted(self._start, key=lambda shape: (shape.flops, shape.size_bytes, shape.m))
        self._measurement.ask(shortest_first)
        chosen = [(shape, self._start[shape]) for shape in shortest_first]
        while chosen:
            self._measure(chosen, end_s, budget_s, progress)
            left_s = end_s - self._measurement.clock()
            chosen = self._choose(min(ROUND_SHARE * budget_s, left_s)) if left_s > 0 else []

    def _measure(
        self, chosen: Sequence[tuple[OpShape, str]], end_s: float, budget_s: float, progress: Progress
    ) -> None:
        clock = self._measurement.clock
        done, began_s = Counter[str](), clock()
        for shape, why in chosen:
            self._known[shape] = self._measurement.visit(self._timed, shape, why)
            done[why] += 1
            left_s = end_s - clock()
            progress(min(1.0, 1 - left_s / budget_s), f"{why}: {shape.op} {shape.kind}")
            if left_s <= 0:
                break
        self._pool = [shape for shape in self._pool if shape not in self._known]
        self._measurement.note_round({**done, "seconds": round(clock() - began_s, 6)})

    def _choose(self, budget_s: float) -> list[tuple[OpShape, str]]:
        """Return what is worth most, of all ops together, for ``budget_s``; in an order that is drawn."""
        noise = visit_noise([each.visits_s for each in self._known.values()])
        groups = {key: group for key, group in grouped(self._known).items() if len(group) >= FEWEST_POINTS}
        fitted = {key: self._fitted(group, noise) for key, group in groups.items()}
        share = IterationShare(self._model, self._tp, fitted)
        choices: list[Choice] = []
        for key, known in groups.items():
            choices += self._again(fitted[key], known, share, noise)
        for key, shapes in grouped(self._pool).items():
            if key in groups:
                choices += self._unsure(fitted[key], groups[key], shapes, share, noise, budget_s)
        choices += self._drawn(choices)
        taken: list[tuple[OpShape, str]] = []
        for choice in sorted(choices, key=lambda each: -each.value):
            if budget_s <= 0:
                break
            taken.append((choice.shape, choice.why))
            budget_s -= choice.cost_s
        return [taken[row] for row in self._rng.permutation(len(taken))]

    def _fitted(self, group: Sequence[OpShape], noise: float) -> Surrogate:
        known = [self._known[shape] for shape in group]
        errors = [scatter(each, noise) / sqrt(len(each.visits_s)) for each in known]
        return Surrogate(group, np.asarray([max(each.median_s, SHORTEST_S) for each in known]), np.asarray(errors))

    def _unsure(
        self,
        fitted: Surrogate,
        known: Sequence[OpShape],
        shapes: Sequence[OpShape],
        share: IterationShare,
        noise: float,
        budget_s: float,
    ) -> list[Choice]:
        """Return the shapes of one op that were not measured and of which its model is least sure."""
        time_s = fitted.predict(shapes).time_s
        cost_s = CALLS * time_s + float(np.median([self._known[shape].around_s for shape in known]))
        worth = np.asarray([share.of(shape, each) for shape, each in zip(shapes, time_s.tolist(), strict=True)])
        chosen = fitted.batch(shapes, worth, cost_s, budget_s, noise)
        return [Choice(shapes[row], LEAST_SURE, gain, float(cost_s[row])) for row, gain in chosen]

    def _again(self, fitted: Surrogate, known: Sequence[OpShape], share: IterationShare, noise: float) -> list[Choice]:
        """Return the measured shapes of one op, each with what one visit more would take away of its variance.

        A time that surprises is a cliff, or a bad moment: another visit tells.
        """
        found = []
        for shape, left, surprise in zip(known, fitted.remaining.tolist(), fitted.surprise.tolist(), strict=True):
            each = self._known[shape]
            variance = max(left, surprise**2) if len(each.visits_s) == 1 else left
            gain = float(taken_away(np.asarray(variance), scatter(each, noise) ** 2))
            worth = share.of(shape, each.median_s)
            found.append(Choice(shape, REPEAT, worth**2 * gain / max(each.spent_s, SHORTEST_S), each.spent_s))
        return found

    def _drawn(self, choices: Sequence[Choice]) -> list[Choice]:
        """Return some visits to be made at any cost, as long as no shape was visited twice: the cheaper half of
        ``choices`` that repeat."""
        if any(len(known.visits_s) > 1 for known in self._known.values()):
            return []
        cheapest = sorted((each for each in choices if each.why == REPEAT), key=lambda each: each.cost_s)
        drawn = self._rng.permutation((len(cheapest) + 1) // 2)[:REVISITED]
        return [cheapest[row]._replace(value=np.inf) for row in drawn]


def scatter(known: Samples, noise: float) -> float:
    """Return the relative scatter of a shape's times from one visit to the next.

    The times of one visit follow each other at once and share what slows a machine down for a while, so the scatter
    between visits counts apart. It is taken to be at least ``noise``, that of all shapes.
    """
    spread_s = known.spread_s if isfinite(known.spread_s) else 0.0
    calls = len(known.seconds) / len(known.visits_s)
    within = MEDIAN_LOSS * spread_s / QUARTILE / max(known.median_s, SHORTEST_S) / sqrt(calls)
    return hypot(max(noise, _between(known.visits_s)), within)


def visit_noise(visits_s: Sequence[Sequence[float]]) -> float:
    """Return the relative scatter of medians from one visit to the next, over all shapes."""
    several = [_between(each) for each in visits_s if len(each) > 1]
    if len(several) < FEWEST_POINTS:
        return FIRST_NOISE
    return float(np.clip(np.median(several) / QUARTILE, LEAST_NOISE, MOST_NOISE))


def _between(visits_s: Sequence[float]) -> float:
    """Return the standard deviation of the logs; 0 for a single visit."""
    return stdev(log(max(each, SHORTEST_S)) for each in visits_s) if len(visits_s) > 1 else 0.0


def plan_of(rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what ``profile.json`` says of the rounds: visits by reason, altogether and in each."""
    visits = Counter[str]()
    for each in rounds:
        visits.update({why: int(count) for why, count in each.items() if why != "seconds"})
    return {"visits": dict(visits), "rounds": [dict(each) for each in rounds]} if rounds else {}
