"""Fitting and judging: the rows of one line of the benchmark's table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bench.accuracy.forest import VidurForest
from bench.accuracy.splits import Rows, Split, splits
from bench.accuracy.tables import OpTable
from profiler.design import farthest
from profiler.errors import errors
from profiler.fit import fit_op, fit_rows
from profiler.fitted import FittedOp
from profiler.tile import Floats
from profiler.transfer import adapt

COVERAGE = 0.9
BINS = 5
FEWEST_IN_BIN = 50
TRANSFER_POINTS = (5, 10, 20)
Pairs = list[tuple[Floats, Floats]]


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much is computed: seeds, rows of a table and judged rows at most, and trees of the forest."""

    seeds: int
    most_rows: int
    most_judged: int
    trees: int

    def judged(self, rows: Rows, seed: int) -> Rows:
        """Return ``rows``, or as many of them as are judged, drawn at random."""
        few = len(rows) <= self.most_judged
        return rows if few else np.sort(np.random.default_rng(seed).choice(rows, self.most_judged, replace=False))


@dataclass
class Case:
    """One line: measured and predicted times of all seeds, and by how much each row's band was missed."""

    fitted_rows: int = 0
    ours: Pairs = field(default_factory=list)
    forest: Pairs = field(default_factory=list)
    band_share: list[Floats] = field(default_factory=list)

    def line(self) -> dict[str, Any]:
        """Return the errors of all seeds together."""
        line: dict[str, Any] = {"fitted_rows": self.fitted_rows, "ours": _pooled(self.ours)}
        line["forest"] = _pooled(self.forest) if self.forest else None
        if self.band_share:
            predicted = np.concatenate([pair[1] for pair in self.ours])
            line["coverage"] = coverage_by_time(predicted, np.concatenate(self.band_share) <= 1)
        return line


def _pooled(pairs: Pairs) -> Mapping[str, float]:
    return errors(np.concatenate([pair[0] for pair in pairs]), np.concatenate([pair[1] for pair in pairs]))


def coverage_by_time(predicted: Floats, inside: Any) -> dict[str, float]:
    """Return the share of rows inside their band: of all, and the least and the most of equal bins by time."""
    bins = max(1, min(BINS, len(predicted) // FEWEST_IN_BIN))
    parts = np.array_split(np.argsort(predicted, kind="stable"), bins)
    shares = [float(inside[part].mean()) for part in parts]
    return {"all": float(inside.mean()), "least": min(shares), "most": max(shares), "bins": bins}


def within(table: OpTable, effort: Effort) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each case of one table with its line."""
    cases: dict[str, Case] = {}
    for seed in range(effort.seeds):
        for split in splits(table, seed):
            _judge(table, split, effort, seed, cases.setdefault(split.case, Case()))
    for name, case in cases.items():
        yield name, case.line()


def _judge(table: OpTable, split: Split, effort: Effort, seed: int, case: Case) -> None:
    shape, time_s = table.take(split.fitted)
    judged, measured = table.take(effort.judged(split.judged, seed))
    fitted = (fit_op if split.bands else fit_rows)(table.op, shape, time_s, table.device)
    predicted = fitted.predict(judged, table.device)
    case.fitted_rows = len(split.fitted)
    case.ours.append((measured, predicted))
    if split.bands:
        half = np.asarray([fitted.band(COVERAGE, float(seconds)) for seconds in predicted])
        case.band_share.append(np.abs(np.log(measured / predicted)) / half)
    forest = VidurForest(table.op, shape, time_s, trees=effort.trees, seed=seed)
    case.forest.append((measured, forest.predict(judged)))


def between(
    source: OpTable, targets: Sequence[OpTable], effort: Effort
) -> Iterator[tuple[OpTable, str, dict[str, Any]]]:
    """Yield what the fit of ``source`` says of ``targets``: by their datasheets, and after few measured points.

    The forest knows no device: it predicts what it saw on the source.
    """
    fitted = fit_rows(source.op, source.shape, source.time_s, source.device)
    forest = VidurForest(source.op, source.shape, source.time_s, trees=effort.trees, seed=0)
    for target in targets:
        chosen = farthest(target.op, target.shape, target.device, max(TRANSFER_POINTS))
        for points in (0, *TRANSFER_POINTS):
            case = _moved(fitted, target, chosen[:points], effort, None if points else forest)
            yield target, f"from {source.device.name}, {f'{points} points' if points else 'datasheet'}", case.line()


def _moved(fitted: FittedOp, target: OpTable, chosen: Rows, effort: Effort, forest: VidurForest | None) -> Case:
    case, here = Case(fitted_rows=len(chosen)), fitted.physics_only()
    if len(chosen):
        here = adapt(fitted, target.op, *target.take(chosen), target.device)
    others = np.setdiff1d(np.arange(len(target.time_s)), chosen)
    judged, measured = target.take(effort.judged(others, 0))
    case.ours.append((measured, here.predict(judged, target.device)))
    if forest is not None:
        case.forest.append((measured, forest.predict(judged)))
    return case
