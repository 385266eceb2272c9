"""Correcting what an engine adds to its ops, by a recorded run: fitted to one half of it, tested on the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from profiler.bands import Bands
from profiler.cost_model import CostModel
from profiler.engine_fit import COSTS, GROUPS, EngineFit
from profiler.errors import errors
from profiler.tile import Floats

if TYPE_CHECKING:
    from profiler.aggregates import BatchLike
    from profiler.fitted import FittedDevice
    from profiler.recorded_run import RecordedRun

BLOCKS = 20
"""Parts of a run, in order of time: every other one is fitted to. Both halves see its beginning and its end."""
NOISE = 0.03
"""Relative scatter of iterations, at least: the more they scatter, the more counts what was known before."""
SPREAD = 0.3
"""How far the truth is thought to lie from what was known before: factors by this share, and each cost by so much of
an iteration's time."""
ROUNDS = 12
HUBER, QUARTILE = 1.345, 0.6745
FARTHEST = 5.0
"""A miss is relative to the predicted time, so that a sum comes out right: but not to one so many times off."""
LEAST_GAIN = 0.0005
"""A calibration may make the other half worse by at most this share of the time: less is rounding and luck."""


@dataclass(frozen=True, kw_only=True)
class Fit:
    """How a cost model does on some iterations.

    Attributes
    ----------
    errors
        As :func:`profiler.errors.errors` has them: ``rows``, ``median``, ``p90``, ``time_weighted``.
    bias
        Sum of predicted over sum of measured times - 1.
    """

    errors: Mapping[str, float]
    bias: float

    @staticmethod
    def of(measured_s: Floats, predicted_s: Floats) -> Fit:
        """Return how far ``predicted_s`` is off."""
        return Fit(errors=errors(measured_s, predicted_s), bias=float(predicted_s.sum() / measured_s.sum() - 1))


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What a calibration found.

    Attributes
    ----------
    before, after
        The engine's costs and factors.
    fitted, tested
        On the half that was fitted to and on the other: the cost model before, and after.
    device
        What is to be used from now on: the same ops, with ``after``.
    left_out
        Iterations of the run that could not be used.
    """

    before: EngineFit
    after: EngineFit
    fitted: tuple[Fit, Fit]
    tested: tuple[Fit, Fit]
    device: FittedDevice
    left_out: int

    @property
    def worse(self) -> str | None:
        """Which error on the other half the calibration makes larger, or None."""
        before, after = (each.errors for each in self.tested)
        for key, name in (("median", "the median error"), ("time_weighted", "the error by time")):
            if after[key] > before[key] + LEAST_GAIN:
                return f"{name} rises from {before[key]:.2%} to {after[key]:.2%}"
        return None

    def as_dict(self) -> dict[str, Any]:
        """Return all figures, as JSON."""
        halves = {"fitted": self.fitted, "tested": self.tested}
        return {
            "before": self.before.to_json(),
            "after": self.after.to_json(),
            **{name: {"before": asdict(one), "after": asdict(two)} for name, (one, two) in halves.items()},
            "worse": self.worse,
            "left_out": self.left_out,
        }


def calibrate(run: RecordedRun, cost_model: CostModel) -> Calibration:
    """Correct the engine of ``cost_model`` by ``run``.

    The corrected times are ``sum(factor x ops) + costs``, see :class:`profiler.engine_fit.EngineFit`. Factors and
    costs are not negative and are drawn towards what they were: what a run does not tell apart stays where it was,
    and a hundred iterations suffice. Iterations that are far off count less (Huber).
    """
    before = engine_of(cost_model)
    terms, fixed_s = terms_of(cost_model, run.batches)
    uncalibrated_s = np.asarray([cost_model.iteration_time(batch) for batch in run.batches])
    test = np.arange(len(run.time_s)) * BLOCKS // len(run.time_s) % 2 == 1
    found = solve(terms[~test], run.time_s[~test] - fixed_s[~test], run.time_s[~test], _values(before))
    after = _engine(found, before)
    calibrated_s = terms @ found + fixed_s
    seen, unseen = run.time_s[~test], run.time_s[test]
    tested = replace(
        after, rows=len(unseen), errors=errors(unseen, calibrated_s[test]), bands=Bands.of(unseen, calibrated_s[test])
    )
    return Calibration(
        before=before,
        after=tested,
        fitted=(Fit.of(seen, uncalibrated_s[~test]), Fit.of(seen, calibrated_s[~test])),
        tested=(Fit.of(unseen, uncalibrated_s[test]), Fit.of(unseen, calibrated_s[test])),
        device=_calibrated(cost_model, tested, run),
        left_out=run.left_out,
    )


def engine_of(cost_model: CostModel) -> EngineFit:
    """Return the engine that ``cost_model`` goes by, on all layers of its model."""
    layers = cost_model.deployment.spec.layers
    known = cost_model.fitted.engine
    return (
        EngineFit(iteration_s=cost_model.describe()["overhead_s"], layers=layers) if known is None else known.on(layers)
    )


def terms_of(cost_model: CostModel, batches: Sequence[BatchLike]) -> tuple[Floats, Floats]:
    """Return what factors and costs are multiplied with, [batches, 9], and seconds that nothing scales, [batches]."""
    layers = cost_model.deployment.spec.layers
    alone = CostModel(cost_model.deployment, replace(cost_model.fitted, engine=EngineFit(layers=layers)))
    parts = [alone.op_times(batch) for batch in batches]
    rows = [
        [
            *(part[group] for group in GROUPS),
            1.0,
            len(batch.chunks),
            batch.decodes,
            batch.prefill_tokens + batch.decodes,
        ]
        for part, batch in zip(parts, batches, strict=True)
    ]
    return np.asarray(rows, dtype=np.float64), np.asarray([part["communication"] for part in parts])


def solve(terms: Floats, scaled_s: Floats, time_s: Floats, known: Floats) -> Floats:
    """Return the factors and costs, none negative, that explain ``scaled_s`` and are near ``known``.

    Parameters
    ----------
    terms
        [iterations, 9], see :func:`terms_of`.
    scaled_s, time_s
        [iterations], the seconds to explain, and the whole of them with what nothing scales.
    known
        [9], what is thought before.
    """
    from scipy.optimize import nnls

    doubt = _doubt(terms / time_s[:, None])
    found, scale_s = known, time_s
    weight, noise = np.ones(len(time_s)), NOISE
    for _ in range(ROUNDS):
        root, prior = np.sqrt(weight) / scale_s, np.diag(noise / doubt)
        rows, aims = np.vstack([root[:, None] * terms, prior]), np.concatenate([root * scaled_s, prior @ known])
        found = nnls(rows, aims)[0]
        predicted_s = terms @ found + time_s - scaled_s
        scale_s = np.clip(predicted_s, time_s / FARTHEST, time_s * FARTHEST)
        miss = np.abs(predicted_s - time_s) / scale_s
        noise = max(NOISE, float(np.median(miss)) / QUARTILE)
        weight = np.minimum(1.0, HUBER * noise / np.maximum(miss, 1e-12))
    return np.asarray(found, dtype=np.float64)


def _doubt(shares: Floats) -> Floats:
    """Return how far each factor and cost may lie from what is known, [9], by their ``shares`` of each time."""
    typical = [np.median(column[column > 0]) if (column > 0).any() else 1.0 for column in shares.T[len(GROUPS) :]]
    return np.concatenate([np.full(len(GROUPS), SPREAD), SPREAD / np.asarray(typical)])


def _values(engine: EngineFit) -> Floats:
    return np.asarray([*(engine.factors[group] for group in GROUPS), *(getattr(engine, name) for name in COSTS)])


def _engine(values: Floats, before: EngineFit) -> EngineFit:
    found = values.tolist()
    costs: dict[str, Any] = dict(zip(COSTS, found[len(GROUPS) :], strict=True))
    return EngineFit(factors=dict(zip(GROUPS, found, strict=False)), **costs, layers=before.layers)


def _calibrated(cost_model: CostModel, engine: EngineFit, run: RecordedRun) -> FittedDevice:
    """Return the cost model's device with ``engine``, and where it comes from."""
    placed, fitted = cost_model.deployment, cost_model.fitted
    said = {"device": placed.hardware.name, "model": placed.spec.name, "fused": placed.spec.fused}
    source = {"run": run.where.name, "iterations": len(run.time_s)}
    return replace(fitted, engine=engine, origin={**fitted.origin, "calibration": {**said, **source}})
