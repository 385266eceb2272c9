"""Fitting the physics of each op to measured times. scipy is imported only while fitting."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from profiler import decode_attention, elementwise, gemm, prefill_attention
from profiler.op import DECODE_ATTENTION, ELEMENTWISE, GEMM, PREFILL_ATTENTION, Op, Shape
from profiler.tile import Floats

if TYPE_CHECKING:
    from profiler.device import Device

MOST_ROWS = 3000
MOST_STEPS = 80
STARTS = 6
SOFT_FROM = 0.1
PULL = 0.02
"""How strongly coefficients of attention are drawn to where they start, in shares of a log error."""


def fit_physics(op: Op, shape: Shape, time_s: Floats, device: Device) -> dict[str, float]:
    """Return the op's coefficients: soft-L1 on the log error of GEMMs and attention, else NNLS on the relative one."""
    if len(time_s) > MOST_ROWS:
        rows = np.sort(np.random.default_rng(0).choice(len(time_s), MOST_ROWS, replace=False))
        shape, time_s = {key: values[rows] for key, values in shape.items()}, time_s[rows]
    if op is GEMM:
        return _fit_gemm(shape, time_s, device)
    if op is DECODE_ATTENTION:
        return _fit_decode(shape, time_s, device)
    if op is PREFILL_ATTENTION:
        return _fit_prefill(shape, time_s, device)
    return _fit_terms(op, shape, time_s, device)


def _fit_terms(op: Op, shape: Shape, time_s: Floats, device: Device) -> dict[str, float]:
    from scipy.optimize import nnls

    if op.terms is None:
        raise ValueError(f"{op.name} has no terms")
    relative = op.terms(shape, device) / time_s[:, None]
    weights, _ = nnls(relative, np.ones(len(time_s)))
    coefficients = dict(zip(op.coefficients, map(float, weights), strict=True))
    return elementwise.with_absent(coefficients) if op is ELEMENTWISE else coefficients


def _fit_gemm(shape: Shape, time_s: Floats, device: Device) -> dict[str, float]:
    from scipy.optimize import least_squares

    def miss(values: Floats) -> Floats:
        return np.log(gemm.physics(_named(values), shape, device) / time_s)

    lowest, highest, start = (np.asarray(v) for v in (gemm.LOWEST, gemm.HIGHEST, gemm.START))
    draws = np.random.default_rng(0)
    fits = []
    for attempt in range(STARTS):
        factor = np.exp(draws.normal(0, 0.2, len(start))) if attempt else np.ones(len(start))
        inside = np.clip(start * factor, lowest + 1e-3 * (highest - lowest), highest - 1e-3 * (highest - lowest))
        fits.append(
            least_squares(
                miss,
                inside,
                bounds=(lowest, highest),
                loss="soft_l1",
                f_scale=SOFT_FROM,
                x_scale=start,
                diff_step=1e-2,
            )
        )
    return _named(min(fits, key=lambda fit: float(fit.cost)).x)


def _fit_decode(shape: Shape, time_s: Floats, device: Device) -> dict[str, float]:
    layout = decode_attention.Blocks.of(shape, device)

    def predict(coefficients: dict[str, float]) -> Floats:
        return decode_attention.seconds(coefficients, shape, layout, device)

    return _fit_attention(predict, time_s, decode_attention.COEFFICIENTS)[1]


def _fit_prefill(shape: Shape, time_s: Floats, device: Device) -> dict[str, float]:
    """Return the coefficients of whichever kernel fits better: one that packs query heads, or one that does not."""
    fits = []
    for packed in (False, True):
        launch = prefill_attention.Launch.of(shape, device, packed)
        cost, found = _fit_attention(partial(_prefill_s, launch), time_s, prefill_attention.COEFFICIENTS)
        fits.append((cost, found | {prefill_attention.PACKED: float(packed)}))
    return min(fits, key=lambda fit: fit[0])[1]


def _prefill_s(launch: prefill_attention.Launch, coefficients: Mapping[str, float]) -> Floats:
    return prefill_attention.seconds(coefficients, launch)


def _fit_attention(
    predict: Callable[[dict[str, float]], Floats], time_s: Floats, bounds: Mapping[str, Sequence[float]]
) -> tuple[float, dict[str, float]]:
    """Return how badly, and with which coefficients within ``bounds`` (start, least, most), ``predict`` fits."""
    from scipy.optimize import least_squares

    start, lowest, highest = (np.asarray([limits[part] for limits in bounds.values()]) for part in range(3))

    def named(values: Floats) -> dict[str, float]:
        return dict(zip(bounds, map(float, values), strict=True))

    def miss(values: Floats) -> Floats:
        pull = PULL * np.log((values + 1e-3) / start)
        return np.concatenate([np.log(predict(named(values)) / time_s), pull])

    found = least_squares(
        miss, start, bounds=(lowest, highest), loss="soft_l1", f_scale=SOFT_FROM, x_scale=start, max_nfev=MOST_STEPS
    )
    return float(found.cost), named(found.x)


def _named(values: Floats) -> dict[str, float]:
    return dict(zip(gemm.NAMES, map(float, values), strict=True))
