"""All experiments, in the order of the papers."""

from __future__ import annotations

from simulator.paper.experiment import Experiment
from simulator.paper.gpt3.pipeline import EXPERIMENT as GPT3_PIPELINE
from simulator.paper.gpt3.today import EXPERIMENT as GPT3_TODAY

EXPERIMENTS: tuple[Experiment, ...] = (GPT3_PIPELINE, GPT3_TODAY)
