"""What a running engine is about to do, by the requests that it has had."""

from __future__ import annotations

from math import isfinite
from pathlib import Path

from policies.blocks import KVMemory
from policies.catalog import PolicyChoice
from profiler.cost_model import load_cost_model
from profiler.deployment import Deployment
from simulator.cluster import Cluster
from simulator.simulation import Scenario, simulate_in_memory
from simulator.trials.outcome import figures
from traces.metrics import measure
from traces.workload import Workload


class Forecaster:
    """Simulates an engine.

    Parameters
    ----------
    deployment, memory
        What runs where, and the KV cache that policies fill.
    profile
        The measurements that the cost model is fitted to; None: the coefficients that ship with the package.
    seed
        Of the simulations.

    Raises
    ------
    InputError
        If the profile is broken, measures another device, or none is known of the device.
    """

    def __init__(self, *, deployment: Deployment, memory: KVMemory, profile: Path | None, seed: int = 0) -> None:
        self._cluster = Cluster.single(deployment, load_cost_model(deployment, profile=profile), memory)
        self._seed = seed

    def forecast(self, choice: PolicyChoice, workload: Workload) -> dict[str, float]:
        """Return what ``choice`` makes of ``workload``, from an empty engine on.

        Returns
        -------
        dict
            By the names of :func:`simulator.trials.outcome.figures`; seconds, shares, and amounts a second. Without
            those that have no value.

        Raises
        ------
        InputError
            If the policy does not go with the memory, or can never serve a request.
        """
        run = simulate_in_memory(Scenario(workload=workload, cluster=self._cluster, seed=self._seed), choice)
        return {name: value for name, value in figures(measure(run)).items() if isfinite(value)}
