"""An engine whose iterations take as long as the authors published: evidence of what a deviation comes from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from profiler.calibration import GROUPS, engine_of, solve, terms_of
from profiler.cost_model import CostModel, load_cost_model
from profiler.deployment import Deployment
from profiler.engine_fit import COSTS, EngineFit
from profiler.published import published_for

FILE = "published.json"


def engine_as_published(cost_model: CostModel) -> EngineFit:
    """Return the engine that explains the iterations published of a model best, beside the ops of its cost model.

    Factors of groups of ops, and costs an iteration, chunk, decode and token, none negative and all drawn towards what
    they are thought to be (:func:`profiler.calibration.solve`).

    Raises
    ------
    ValueError
        If none were published.
    """
    placed = cost_model.deployment
    rows = published_for(placed.spec.name, placed.hardware.name, placed.tensor_parallel_size)
    if not rows:
        raise ValueError(f"no iterations of {placed.spec.name} on {placed.hardware.name} were published")
    time_s = np.asarray([row.total_s for row in rows])
    terms, fixed_s = terms_of(cost_model, [row.batch for row in rows])
    before = engine_of(cost_model)
    known = [*(before.factors[group] for group in GROUPS), *(getattr(before, name) for name in COSTS)]
    found = solve(terms, time_s - fixed_s, time_s, np.asarray(known)).tolist()
    factors = dict(zip(GROUPS, found, strict=False))
    return EngineFit(
        factors=factors, **dict(zip(COSTS, found[len(GROUPS) :], strict=True)), layers=before.layers, rows=len(rows)
    )


def profile_as_published(deployment: Deployment, folder: Path) -> str:
    """Write a profile of that engine to ``folder``; return its path, which a candidate takes."""
    cost_model = load_cost_model(deployment)
    placed, fitted = cost_model.deployment, cost_model.fitted
    said = {"device": placed.hardware.name, "model": placed.spec.name, "fused": placed.spec.fused}
    made = replace(
        fitted, engine=engine_as_published(cost_model), origin={**fitted.origin, "calibration": {**said, "run": FILE}}
    )
    path = folder / FILE
    made.save(path)
    return str(path)
