"""Fitting the physics of attention: to a table, or to few rows from where another device's lie."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from profiler import decode_attention, prefill_attention
from profiler.op import DECODE_ATTENTION, PREFILL_ATTENTION, Op, Shape
from profiler.tile import Floats

if TYPE_CHECKING:
    from profiler.device import Device

MOST_STEPS = 25
SOFT_FROM = 0.1
PULL, PULL_OF_MOVED = 0.02, 0.1
"""How strongly coefficients of attention are drawn to where they start, in shares of a log error, and to where they
lay on another device."""
LEAST_OF_START = 0.02
"""Of a coefficient's usual start, where it starts if it was nothing on another device."""


def move_attention(
    op: Op, coefficients: Mapping[str, float], shape: Shape, time_s: Floats, device: Device
) -> dict[str, float]:
    """Return the coefficients that another device's have become on ``device``, from few rows measured there.

    Those of attention are scaled as the rows say together, and from there drawn to where the rows say each of them
    lies; a prefill kernel is chosen anew.

    Raises
    ------
    ValueError
        If ``op`` is not attention.
    """
    if op not in (PREFILL_ATTENTION, DECODE_ATTENTION):
        raise ValueError(f"{op.name} is not attention")
    limits = prefill_attention.COEFFICIENTS if op is PREFILL_ATTENTION else decode_attention.COEFFICIENTS
    scale = float(np.exp(np.median(np.log(time_s / op.physics(coefficients, shape, device)))))
    moved = {name: _moved(coefficients.get(name, absent), scale, each) for name, (*each, absent) in limits.items()}
    fit = fit_prefill if op is PREFILL_ATTENTION else fit_decode
    return fit(shape, time_s, device, moved, PULL_OF_MOVED)


def _moved(value: float, scale: float, limits: Sequence[float]) -> tuple[float, float, float]:
    """Return start, least and most of a moved coefficient: what has no most is a time, what has one is a share."""
    start, lowest, highest = limits
    if highest == np.inf:
        return max(value * scale, LEAST_OF_START * start), lowest, highest
    margin = 1e-3 * (highest - lowest)
    return float(np.clip(value, lowest + margin, highest - margin)), lowest, highest


def fit_decode(
    shape: Shape,
    time_s: Floats,
    device: Device,
    limits: Mapping[str, Sequence[float]] = decode_attention.COEFFICIENTS,
    pull: float = PULL,
) -> dict[str, float]:
    """Return the coefficients within ``limits`` (start, least, most), drawn to where they start by ``pull``."""
    layout = decode_attention.Blocks.of(shape, device)

    def predict(coefficients: dict[str, float]) -> Floats:
        return decode_attention.seconds(coefficients, shape, layout, device)

    return _fit_attention(predict, time_s, limits, pull)[1]


def fit_prefill(
    shape: Shape,
    time_s: Floats,
    device: Device,
    limits: Mapping[str, Sequence[float]] = prefill_attention.COEFFICIENTS,
    pull: float = PULL,
) -> dict[str, float]:
    """Return the coefficients of whichever kernel fits better: one that packs query heads, or one that does not."""
    fits = []
    for packed in (False, True):
        launch = prefill_attention.Launch.of(shape, device, packed)
        cost, found = _fit_attention(partial(_prefill_s, launch), time_s, limits, pull)
        fits.append((cost, found | {prefill_attention.PACKED: float(packed)}))
    return min(fits, key=lambda fit: fit[0])[1]


def _prefill_s(launch: prefill_attention.Launch, coefficients: Mapping[str, float]) -> Floats:
    return prefill_attention.seconds(coefficients, launch)


def _fit_attention(
    predict: Callable[[dict[str, float]], Floats], time_s: Floats, bounds: Mapping[str, Sequence[float]], pull: float
) -> tuple[float, dict[str, float]]:
    """Return how badly, and with which coefficients within ``bounds`` (start, least, most), ``predict`` fits."""
    from scipy.optimize import least_squares

    start, lowest, highest = (np.asarray([limits[part] for limits in bounds.values()]) for part in range(3))

    def named(values: Floats) -> dict[str, float]:
        return dict(zip(bounds, map(float, values), strict=True))

    def miss(values: Floats) -> Floats:
        drawn = pull * np.log((values + 1e-3) / (start + 1e-3))
        return np.concatenate([np.log(predict(named(values)) / time_s), drawn])

    found = least_squares(
        miss, start, bounds=(lowest, highest), loss="soft_l1", f_scale=SOFT_FROM, x_scale=start, max_nfev=MOST_STEPS
    )
    return float(found.cost), named(found.x)
