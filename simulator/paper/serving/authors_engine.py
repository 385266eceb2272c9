"""What an iteration costs the authors' engine beside its kernels, by their own times: evidence, never a default.

One decode of Yi-34B took 46.8 ms, though its kernels take about 27: Python and launches, and the more sequences a
batch holds the more of them. Two statements are made of that: a base and an amount a sequence, fitted to every other
published iteration of decodes, so that the others can tell whether they hold; and a base alone, that of the smallest
batches. Of models whose iterations nobody published only the latency target is known, a multiple of an iteration.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from statistics import median

import numpy as np

from profiler.bands import Bands
from profiler.cost_model import CostModel
from profiler.deployment import Deployment
from profiler.engine_fit import EngineFit
from profiler.errors import errors
from profiler.published import OSDI, Published, published_for
from profiler.transfer import load_fitted
from simulator.paper.serving.setup import YI_34B, target_iteration_s

SMALL = 4
"""Up to so many decodes the published iterations take equally long: kernels are not what they wait for."""


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


def small_base() -> EngineFit:
    """Return the other statement: what the smallest published batches of decodes take beside kernels, their median."""
    kernels = with_engine(YI_34B.deployment, EngineFit())
    rows = [row for row in curve_of(decodes=True) if row.batch.decodes <= SMALL]
    return _base_alone(YI_34B.deployment, median(row.total_s - kernels.iteration_time(row.batch) for row in rows))


def target_base(deployment: Deployment, iteration_s: float) -> EngineFit:
    """Return the engine by which the iteration that latency targets are multiples of takes ``iteration_s``."""
    kernels_s = target_iteration_s(with_engine(deployment, EngineFit()))
    return _base_alone(deployment, max(0.0, iteration_s - kernels_s))


def _base_alone(deployment: Deployment, iteration_s: float) -> EngineFit:
    """Return an engine that costs so much an iteration, all stages together, and says nothing of how sure that is."""
    one = np.ones(1)
    return EngineFit(iteration_s=iteration_s, layers=deployment.spec.layers, bands=Bands.of(one, one))


def profile_with(deployment: Deployment, engine: EngineFit, path: Path) -> str:
    """Write what :func:`with_engine` knows to ``path``; return it as text, as a candidate takes its profile."""
    made = {"device": deployment.hardware.name, "model": deployment.spec.name, "fused": deployment.spec.fused}
    fitted = with_engine(deployment, engine).fitted
    replace(fitted, origin={**fitted.origin, "calibration": made}).save(path)
    return str(path)


def profile_with_base(deployment: Deployment, folder: Path) -> str:
    """Write the base iteration to a file in ``folder``; return its path."""
    return profile_with(deployment, base_iteration(), folder / "base-iteration.json")


def told() -> str:
    """Say what is changed with it, in a few words."""
    engine = base_iteration()
    return f"their base iteration ({1e3 * engine.iteration_s:.1f} ms and {1e3 * engine.decode_s:.2f} ms a sequence)"


def told_small() -> str:
    """Say what is changed with the base alone, in a few words."""
    return f"their smallest base ({1e3 * small_base().iteration_s:.1f} ms an iteration, whatever it holds)"


def explained() -> str:
    """Say where the statement comes from."""
    *most, last = (str(row.batch.decodes) for row in fitted_rows())
    return (
        f"With {told()}: what an iteration of Yi-34B took beside its kernels, fitted to the artifact's decodes of "
        f"{', '.join(most)} and {last} alone (that it meets these is by its making), and on other models as much a "
        "layer. It is evidence for what deviations come from, and never what is predicted."
    )
