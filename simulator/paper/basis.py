"""Whose measurements an experiment stands on, in a sentence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from profiler.cost_model import load_cost_model
from profiler.deployment import Deployment


def basis(deployment: Deployment) -> str:
    """Return which measured coefficients predict a deployment, and which ops of it are another device's."""
    known = load_cost_model(deployment).describe()
    ways, stages = deployment.tensor_parallel_size, deployment.pipeline_parallel_size
    split = f", TP {ways}" * (ways > 1) + f", PP {stages}" * (stages > 1)
    where = f"{deployment.spec.name} on {deployment.hardware.title}{split}"
    if known["transferred"]:
        return f"{where}: coefficients of the {known['from']} with this device's datasheet."
    needed = {"all_reduce": ways > 1, "send": stages > 1}
    borrowed = {op: source for op, source in known["borrowed"].items() if needed.get(op, True)}
    return f"{where}: {'; '.join(('coefficients fitted to measurements of that device', *_of_others(borrowed)))}."


def _of_others(borrowed: Mapping[str, str]) -> Iterator[str]:
    """Yield the ops of each other device."""
    for source in dict.fromkeys(borrowed.values()):
        ops = [op.replace("_", " ") for op, other in borrowed.items() if other == source]
        yield f"{' and '.join(ops)} from the {source}"
