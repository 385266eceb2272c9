"""Capacities of the paper's three systems, on both datasets, within both latency targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from simulator.capacity.capacity import Capacity
from simulator.capacity.ratio import ratio
from simulator.capacity.slo_capacities import find_capacities
from simulator.paper.serving.setup import (
    DATASETS,
    REQUESTS,
    SARATHI_SERVE,
    SYSTEMS,
    TARGETS,
    Setup,
    demand,
)
from simulator.trials.plan import Plan, side_by_side

PILOT = 512
"""Requests by which it is looked for first, roughly, where the capacities are."""


class Cell(NamedTuple):
    """Of which dataset, target and system a capacity is."""

    dataset: str
    target: str
    system: str


Grid = Mapping[Cell, Capacity]


def find_grid(
    setup: Setup,
    *,
    datasets: Sequence[str] = DATASETS,
    asked: Sequence[str] = TARGETS,
    systems: Sequence[str] = SYSTEMS,
    requests: int = REQUESTS,
    seed: int = 0,
    **others: Any,
) -> Plan[dict[Cell, Capacity]]:
    """Return the plan that finds the capacities of a model, for one draw of the requests.

    Systems whose settings are the same for both targets are run once for both.

    Parameters
    ----------
    datasets, asked, systems
        Which of them; ``asked`` are targets.
    requests, seed
        How many are drawn, and by which seed.
    others
        Further fields of all candidates.
    """
    plans: dict[str, Plan[dict[Cell, Capacity]]] = {}
    for dataset in datasets:
        for system in systems:
            parts = [[target] for target in asked] if system == SARATHI_SERVE else [list(asked)]
            for part in parts:
                name = " ".join((dataset, system, *part))
                plans[name] = _curve(setup, dataset, system, part, requests=requests, seed=seed, others=others)
    found = yield from side_by_side(plans)
    return {cell: capacity for each in found.values() for cell, capacity in each.items()}


def _curve(
    setup: Setup,
    dataset: str,
    system: str,
    asked: Sequence[str],
    *,
    requests: int,
    seed: int,
    others: Mapping[str, Any],
) -> Plan[dict[Cell, Capacity]]:
    choice = setup.choice(system, dataset, asked[0])
    found = yield from find_capacities(
        setup.candidate(choice, dataset, **others),
        demand(dataset, requests),
        [setup.slo(target) for target in asked],
        guess_per_s=setup.first_per_s[dataset],
        seed=seed,
        pilot_requests=PILOT if requests > PILOT else 0,
    )
    return {Cell(dataset, target, system): each for target, each in zip(asked, found, strict=True)}


def gain(grid: Grid, dataset: str, target: str, over: str) -> float:
    """Return the capacity of Sarathi-Serve over that of another system; NaN where one of them has none."""
    found = ratio(grid[Cell(dataset, target, SARATHI_SERVE)], grid[Cell(dataset, target, over)])
    return float("nan") if found is None else found.value
