"""How far predictions are off what was measured."""

from __future__ import annotations

import numpy as np

from profiler.tile import Floats

COVERAGES = (0.5, 0.8, 0.9, 0.95, 0.99)


def errors(measured: Floats, predicted: Floats) -> dict[str, float]:
    """Return rows, and the errors as shares of the measured time: median, 90th percentile, weighted by time."""
    share = np.abs(predicted / measured - 1)
    values = {
        "median": float(np.median(share)),
        "p90": float(np.quantile(share, 0.9)),
        "time_weighted": float(np.abs(predicted - measured).sum() / measured.sum()),
    }
    return {"rows": len(measured), **{key: float(f"{value:.4g}") for key, value in values.items()}}


def bands(measured: Floats, predicted: Floats) -> dict[str, float]:
    """Return the half width, in log time, of a band that holds each of :data:`COVERAGES` of the rows."""
    miss = np.abs(np.log(measured / predicted))
    return {str(share): float(f"{np.quantile(miss, share):.4g}") for share in COVERAGES}
