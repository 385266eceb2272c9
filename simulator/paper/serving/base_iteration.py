"""What an iteration costs the authors' engine beside its kernels: the shortest statement that their own times allow.

One decode of Yi-34B took 46.8 ms, though its kernels take about 27: Python and launches, and the more sequences a batch
holds the more of them. A base and an amount a sequence say that. They are fitted to every other published iteration of
decodes, so that the others can tell whether they hold, and count as evidence alone, never as a default.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from profiler.bands import Bands
from profiler.cost_model import CostModel
from profiler.deployment import Deployment
from profiler.engine_fit import EngineFit
from profiler.errors import errors
from profiler.published import OSDI, Published, published_for
from profiler.transfer import load_fitted
from simulator.paper.serving.setup import YI_34B

FILE = "base-iteration.json"


def curve_of(*, decodes: bool) -> list[Published]:
    """Return the iterations of Yi-34B that the artifact's figure 2 stands on: of decodes alone, or of whole prompts."""
    rows = published_for(YI_34B.model, YI_34B.device, YI_34B.tensor_parallel_size)
    return [row for row in rows if row.source == f"{OSDI}, figure 2" and bool(row.batch.decodes) == decodes]


def fitted_rows() -> list[Published]:
    """Return the iterations that the statement is fitted to."""
    return curve_of(decodes=True)[::2]


@cache
def base_iteration() -> EngineFit:
    """Return the statement: seconds an iteration, and seconds each sequence of it, on the layers of Yi-34B.

    The sum of squared relative errors over :func:`fitted_rows` is least; errors and bands are of the other decodes.
    """
    deployment, rows = YI_34B.deployment, fitted_rows()
    kernels = with_engine(deployment, EngineFit())
    time_s = np.asarray([row.total_s for row in rows])
    beside_s = time_s - [kernels.iteration_time(row.batch) for row in rows]
    terms = np.asarray([[1.0, row.batch.decodes] for row in rows])
    base_s, sequence_s = np.linalg.lstsq(terms / time_s[:, None], beside_s / time_s, rcond=None)[0].tolist()
    costs = {"iteration_s": base_s, "chunk_s": sequence_s, "decode_s": sequence_s}
    engine = EngineFit(**costs, layers=deployment.spec.layers, rows=len(rows))
    return _judged(engine, with_engine(deployment, engine))


def _judged(engine: EngineFit, model: CostModel) -> EngineFit:
    """Return the engine with how far it is off the decodes that it was not fitted to."""
    unseen = curve_of(decodes=True)[1::2]
    measured = np.asarray([row.total_s for row in unseen])
    predicted = np.asarray([model.iteration_time(row.batch) for row in unseen])
    return replace(engine, errors=errors(measured, predicted), bands=Bands.of(measured, predicted))


def with_engine(deployment: Deployment, engine: EngineFit) -> CostModel:
    """Return the cost model of a deployment with an engine's costs in place of the assumed overhead."""
    return CostModel(deployment, replace(load_fitted(deployment.hardware), engine=engine))


def with_base(deployment: Deployment) -> CostModel:
    """Return the cost model of a deployment with the authors' base iteration, by its layers."""
    return with_engine(deployment, base_iteration())


def profile_with_base(deployment: Deployment, folder: Path) -> str:
    """Write what :func:`with_base` knows to ``folder``; return its path, which a candidate takes as its profile."""
    made = {"device": deployment.hardware.name, "model": deployment.spec.name, "fused": deployment.spec.fused}
    fitted = with_base(deployment).fitted
    path = folder / FILE
    replace(fitted, origin={**fitted.origin, "calibration": made}).save(path)
    return str(path)


def told() -> str:
    """Say what is changed with it, in a few words."""
    engine = base_iteration()
    return f"their base iteration ({1e3 * engine.iteration_s:.1f} ms and {1e3 * engine.decode_s:.2f} ms a sequence)"


def explained() -> str:
    """Say where the statement comes from."""
    *most, last = (str(row.batch.decodes) for row in fitted_rows())
    return (
        f"With {told()}: what an iteration of Yi-34B took beside its kernels, fitted to the artifact's decodes of "
        f"{', '.join(most)} and {last} alone, and on other models as much a layer. It is evidence for what deviations "
        "come from, and never what is predicted."
    )
