"""All experiments, in the order of the papers."""

from __future__ import annotations

from simulator.paper.experiment import Experiment
from simulator.paper.gpt3 import pipeline as gpt3_pipeline
from simulator.paper.gpt3 import today as gpt3_today
from simulator.paper.sarathi import (
    chunk_overhead,
    orca_bounds,
    pd_ratio,
    speedup,
    table_2,
    table_4,
    tile_quantisation,
    token_cost,
)
from simulator.paper.sarathi import today as sarathi_today
from simulator.paper.serving import (
    ablation,
    capacity,
    falcon_nodes,
    hybrid_tbt,
    serving_today,
    slo_sweep,
    yi_chunk_overhead,
    yi_iterations,
)

EXPERIMENTS: tuple[Experiment, ...] = (
    token_cost.EXPERIMENT,
    table_2.EXPERIMENT,
    tile_quantisation.EXPERIMENT,
    speedup.EXPERIMENT,
    table_4.EXPERIMENT,
    pd_ratio.EXPERIMENT,
    orca_bounds.EXPERIMENT,
    gpt3_pipeline.EXPERIMENT,
    chunk_overhead.EXPERIMENT,
    yi_iterations.EXPERIMENT,
    hybrid_tbt.EXPERIMENT,
    *capacity.EXPERIMENTS,
    slo_sweep.EXPERIMENT,
    falcon_nodes.EXPERIMENT,
    yi_chunk_overhead.EXPERIMENT,
    ablation.EXPERIMENT,
    sarathi_today.EXPERIMENT,
    gpt3_today.EXPERIMENT,
    serving_today.EXPERIMENT,
)
