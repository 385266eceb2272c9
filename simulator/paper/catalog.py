"""All experiments, in the order of the papers."""

from __future__ import annotations

from simulator.paper.experiment import Experiment
from simulator.paper.sarathi import (
    chunk_overhead,
    orca_bounds,
    pd_ratio,
    speedup,
    table_2,
    table_4,
    tile_quantisation,
    today,
    token_cost,
)

EXPERIMENTS: tuple[Experiment, ...] = (
    token_cost.EXPERIMENT,
    table_2.EXPERIMENT,
    tile_quantisation.EXPERIMENT,
    speedup.EXPERIMENT,
    table_4.EXPERIMENT,
    pd_ratio.EXPERIMENT,
    orca_bounds.EXPERIMENT,
    chunk_overhead.EXPERIMENT,
    today.EXPERIMENT,
)
