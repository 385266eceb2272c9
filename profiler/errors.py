"""How far predictions are off what was measured."""

from __future__ import annotations

import numpy as np

from profiler.tile import Floats


def errors(measured: Floats, predicted: Floats) -> dict[str, float]:
    """Return rows, and the errors as shares of the measured time: median, 90th percentile, weighted by time."""
    share = np.abs(predicted / measured - 1)
    values = {
        "median": float(np.median(share)),
        "p90": float(np.quantile(share, 0.9)),
        "time_weighted": float(np.abs(predicted - measured).sum() / measured.sum()),
    }
    return {"rows": len(measured), **{key: float(f"{value:.4g}") for key, value in values.items()}}
