"""All experiments, in the order of the papers."""

from __future__ import annotations

from simulator.paper.experiment import Experiment
from simulator.paper.serving import ablation, falcon_nodes, hybrid_tbt, yi_chunk_overhead, yi_iterations

EXPERIMENTS: tuple[Experiment, ...] = (
    yi_iterations.EXPERIMENT,
    hybrid_tbt.EXPERIMENT,
    falcon_nodes.EXPERIMENT,
    yi_chunk_overhead.EXPERIMENT,
    ablation.EXPERIMENT,
)
