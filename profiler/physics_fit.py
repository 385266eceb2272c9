"""Fitting the physics of each op to measured times. scipy is imported only while fitting."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from profiler import gemm, gemm_kernel
from profiler.attention_fit import fit_decode, fit_prefill
from profiler.op import DECODE_ATTENTION, GEMM, PREFILL_ATTENTION, Op, Shape
from profiler.tile import Floats

if TYPE_CHECKING:
    from profiler.device import Device

MOST_ROWS = 3000
MOST_STEPS = 80
STARTS = 6
MOST_ROWS_OF_KERNELS = 600
MOST_STEPS_OF_KERNELS = 15
KERNELS_SOFT_FROM = 0.04
"""A miss of the log time that counts as much as one standard deviation of a prior."""
SOFT_FROM = 0.1


def fit_physics(op: Op, shape: Shape, time_s: Floats, device: Device, *, transferable: bool = True) -> dict[str, float]:
    """Return the op's coefficients: soft-L1 on the log error of GEMMs and attention, else NNLS on the relative one.

    Those of GEMMs for other devices are left out unless they are to be ``transferable``.
    """
    shape, time_s = _some(shape, time_s, MOST_ROWS)
    if op is GEMM:
        kernels = _fit_kernels(*_some(shape, time_s, MOST_ROWS_OF_KERNELS), device)
        return _fit_gemm(shape, time_s, device) | kernels if transferable else kernels
    if op is DECODE_ATTENTION:
        return fit_decode(shape, time_s, device)
    if op is PREFILL_ATTENTION:
        return fit_prefill(shape, time_s, device)
    return _fit_terms(op, shape, time_s, device)


def _some(shape: Shape, time_s: Floats, most: int) -> tuple[Shape, Floats]:
    if len(time_s) <= most:
        return shape, time_s
    rows = np.sort(np.random.default_rng(0).choice(len(time_s), most, replace=False))
    return {key: values[rows] for key, values in shape.items()}, time_s[rows]


def _fit_terms(op: Op, shape: Shape, time_s: Floats, device: Device) -> dict[str, float]:
    from scipy.optimize import nnls

    if op.terms is None:
        raise ValueError(f"{op.name} has no terms")
    relative = op.terms(shape, device) / time_s[:, None]
    weights, _ = nnls(relative, np.ones(len(time_s)))
    return dict(zip(op.coefficients, map(float, weights), strict=True))


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


def _fit_kernels(shape: Shape, time_s: Floats, device: Device) -> dict[str, float]:
    """Return the likeliest coefficients given rows and priors, all of them positive (maximum a posteriori)."""
    from scipy.optimize import least_squares

    expected, deviation = np.asarray(list(gemm_kernel.PRIORS.values())).T
    kernels = gemm_kernel.Kernels.of(shape, device)

    def named(logs: Floats) -> dict[str, float]:
        return dict(zip(gemm_kernel.NAMES, map(float, np.exp(logs)), strict=True))

    def miss(logs: Floats) -> Floats:
        log_ratio = np.log(kernels.seconds(named(logs), shape, device).min(axis=1) / time_s) / KERNELS_SOFT_FROM
        soft = np.sqrt(2 * (np.sqrt(1 + log_ratio**2) - 1))
        return np.concatenate([soft, (logs - np.log(expected)) / deviation])

    return named(least_squares(miss, np.log(expected), diff_step=1e-3, max_nfev=MOST_STEPS_OF_KERNELS).x)


def _named(values: Floats) -> dict[str, float]:
    return dict(zip(gemm.NAMES, map(float, values), strict=True))
