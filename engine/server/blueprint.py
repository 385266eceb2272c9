"""What an engine is built from, as it goes to the process that builds it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path

from engine.clock import WallClock
from engine.costs import costs_known
from engine.engine import Engine
from engine.replay import deployment_of
from engine.runner import Runner
from engine.session import EngineSettings, build_runner, cost_profile
from engine.text import Tokenizer
from policies.catalog import PolicyChoice
from profiler.cost_model import CostModel, load_cost_model
from traces.errors import InputError

log = logging.getLogger(__name__)

TokenizerOf = Callable[[str], Tokenizer | None]


def no_tokenizer(model: str) -> None:
    """Token ids alone, whatever the model."""


@dataclass(frozen=True, kw_only=True)
class Blueprint:
    """An engine that serves.

    Attributes
    ----------
    settings, choice
        What was asked for.
    tokenizer
        Called with the model in the engine's process: a function of some module, since it is sent by its name.
    record, record_s
        Where to write run records of what is served, none if None, and how many seconds each may be long.
    """

    settings: EngineSettings
    choice: PolicyChoice
    tokenizer: TokenizerOf = no_tokenizer
    record: Path | None = None
    record_s: float = inf

    @property
    def profile(self) -> str | None:
        """What the cost model is fitted to; None for the coefficients that ship with the package."""
        return cost_profile(self.settings, self.choice)

    def of_replica(self, index: int) -> Blueprint:
        """Return that of one of several replicas, which writes its records to a folder of its own."""
        return self if self.record is None else replace(self, record=self.record / f"replica-{index}")

    def build(self) -> Engine:
        """Build the engine and warm it up; it goes by the machine's clock.

        Raises
        ------
        InputError
            If anything asked for is wrong or does not fit.
        """
        settings, choice = self.settings, self.choice
        choice.check_costs(known=costs_known(settings.device, self.profile))
        tokenizer = self.tokenizer(settings.model)
        runner = build_runner(settings, choice, longest=None)
        costs = self._costs(runner)
        engine = Engine(
            runner,
            choice,
            tokenizer=tokenizer,
            seed=settings.seed,
            clock=WallClock(0.0),
            costs=costs,
            predictor=costs,
        )
        runner.warm_up()
        return engine

    def _costs(self, runner: Runner) -> CostModel | None:
        """Return the cost model; None where there is none, or none that can be read and nobody asked for it."""
        settings, choice = self.settings, self.choice
        if not costs_known(settings.device, self.profile):
            return None
        try:
            return load_cost_model(deployment_of(runner, [choice], settings.model), profile=self.profile)
        except InputError as error:
            if settings.profile is not None or choice.needs_costs:
                raise
            log.warning("iteration times are not predicted: %s", error)
            return None
