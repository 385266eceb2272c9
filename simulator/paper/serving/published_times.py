"""Engines whose iterations take as long as was published: evidence of what a deviation comes from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np

from profiler.aggregates import Aggregates
from profiler.bands import Bands
from profiler.calibration import engine_of, solve, terms_of
from profiler.cost_model import CostModel, load_cost_model
from profiler.deployment import Deployment
from profiler.engine_fit import COSTS, GROUPS, EngineFit
from profiler.published import Published, published_for

TARGET_BATCH = Aggregates.of(decodes=32, context=4096)
"""The iteration that the paper's latency targets are multiples of (section 5.1)."""
SMALL = 4
"""Up to so many decodes the published iterations take equally long: kernels are not what they wait for."""


def decode_s(cost_model: CostModel) -> float:
    """Return how long the iteration takes that targets are multiples of, all stages together, in seconds."""
    stages = range(cost_model.deployment.pipeline_parallel_size)
    return sum(cost_model.iteration_time(TARGET_BATCH, stage) for stage in stages)


def as_published(deployment: Deployment, folder: Path) -> str:
    """Write a profile by which iterations take as long as the authors' to ``folder``; return its path."""
    cost_model = load_cost_model(deployment)
    return _write(cost_model, fitted_engine(cost_model, _rows(deployment)), folder / "published.json")


def base_of_table(deployment: Deployment, folder: Path) -> str:
    """Write a profile whose ops are ours and whose iterations cost beside them what the authors' table has beside
    linear layers and attention, the median of its rows, less the head and the all-reduces, which are in ours."""
    cost_model = load_cost_model(deployment)
    found = []
    for row in _rows(deployment):
        if row.linear_s is not None and row.attention_s is not None:
            parts = cost_model.breakdown(row.batch)
            found.append(row.total_s - row.linear_s - row.attention_s - parts["head"] - parts["communication"])
    return _write(cost_model, _engine(cost_model, median(found)), folder / "base-of-table.json")


def base_of_decodes(deployment: Deployment, folder: Path) -> str:
    """Write a profile whose ops are ours and whose iterations cost beside them what the authors' figure has on top of
    ours for the smallest batches of decodes, their median."""
    cost_model = load_cost_model(deployment)
    found = []
    for row in _rows(deployment):
        if row.linear_s is None and 0 < row.batch.decodes <= SMALL:
            parts = cost_model.breakdown(row.batch)
            found.append(row.total_s - sum(parts.values()) + parts["overhead"])
    return _write(cost_model, _engine(cost_model, median(found)), folder / "base-of-decodes.json")


def base_of_target(deployment: Deployment, folder: Path, target_s: float) -> str:
    """Write a profile whose ops are ours and by which :data:`TARGET_BATCH` takes ``target_s``, all stages together."""
    cost_model = load_cost_model(deployment)
    own_s = cost_model.describe()["overhead_s"] * deployment.pipeline_parallel_size
    engine = _engine(cost_model, max(0.0, target_s - decode_s(cost_model) + own_s))
    return _write(cost_model, engine, folder / "base-of-target.json")


def fitted_engine(cost_model: CostModel, rows: Sequence[Published]) -> EngineFit:
    """Return the engine that explains published iterations best: factors on groups of a cost model's ops and costs of
    its own, none negative, drawn towards what they are thought to be (:func:`profiler.calibration.solve`)."""
    time_s = np.asarray([row.total_s for row in rows])
    terms, fixed_s = terms_of(cost_model, [row.batch for row in rows])
    before = engine_of(cost_model)
    known = [*(before.factors[group] for group in GROUPS), *(getattr(before, name) for name in COSTS)]
    found = solve(terms, time_s - fixed_s, time_s, np.asarray(known))
    values = found.tolist()
    return EngineFit(
        factors=dict(zip(GROUPS, values, strict=False)),
        **dict(zip(COSTS, values[len(GROUPS) :], strict=True)),
        layers=before.layers,
        rows=len(rows),
        bands=Bands.of(time_s, terms @ found + fixed_s),
    )


def _engine(cost_model: CostModel, iteration_s: float) -> EngineFit:
    """Return an engine that costs so much an iteration, all stages together, and says nothing of how sure that is."""
    one = np.ones(1)
    layers = cost_model.deployment.spec.layers
    return EngineFit(iteration_s=iteration_s, layers=layers, bands=Bands.of(one, one))


def _rows(deployment: Deployment) -> list[Published]:
    rows = published_for(deployment.spec.name, deployment.hardware.name, deployment.tensor_parallel_size)
    if not rows:
        raise ValueError(f"no iterations of {deployment.spec.name} on {deployment.hardware.name} were published")
    return rows


def _write(cost_model: CostModel, engine: EngineFit, path: Path) -> str:
    placed, fitted = cost_model.deployment, cost_model.fitted
    said = {"device": placed.hardware.name, "model": placed.spec.name, "fused": placed.spec.fused, "run": path.stem}
    replace(fitted, engine=engine, origin={**fitted.origin, "calibration": said}).save(path)
    return str(path)
