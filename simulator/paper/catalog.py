"""All experiments, in the order of the papers."""

from __future__ import annotations

from simulator.paper.experiment import Experiment
from simulator.paper.serving import capacity, serving_today, slo_sweep

EXPERIMENTS: tuple[Experiment, ...] = (*capacity.EXPERIMENTS, slo_sweep.EXPERIMENT, serving_today.EXPERIMENT)
