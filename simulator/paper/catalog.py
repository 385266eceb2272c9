"""All experiments, in the order of the papers."""

from __future__ import annotations

from simulator.paper.experiment import Experiment

EXPERIMENTS: tuple[Experiment, ...] = ()
