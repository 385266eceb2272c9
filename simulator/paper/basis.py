"""Whose measurements an experiment stands on, in a sentence."""

from __future__ import annotations

from profiler.cost_model import load_cost_model
from profiler.deployment import Deployment


def basis(deployment: Deployment) -> str:
    """Return which measured coefficients predict a deployment, and which ops of them are another device's."""
    known = load_cost_model(deployment).describe()
    ways, stages = deployment.tensor_parallel_size, deployment.pipeline_parallel_size
    split = f", TP {ways}" * (ways > 1) + f", PP {stages}" * (stages > 1)
    where = f"{deployment.spec.name} on {deployment.hardware.title}{split}"
    if known["transferred"]:
        return f"{where}: coefficients of the {known['from']} with this device's datasheet."
    borrowed = ", ".join(f"{op.replace('_', ' ')} from the {source}" for op, source in known["borrowed"].items())
    return f"{where}: coefficients fitted to published measurements of that device{borrowed and f'; {borrowed}'}."
