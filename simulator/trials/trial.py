"""One simulation among many: a candidate, a demand, a rate, a seed."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

from simulator.simulation import simulate_in_memory
from simulator.trials.candidate import Candidate
from simulator.trials.outcome import Outcome
from traces.demand import Demand
from traces.goodput import GoodputRule


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What is simulated; equal trials have equal outcomes, in any process and on any machine.

    Attributes
    ----------
    rate_per_s
        Mean arrivals per second, at all replicas together.
    seed
        Of requests, routers and failures: one seed for all candidates, so that they differ by nothing else.
    goodput
        Targets whose share of requests is counted.
    cost_draw
        Which draw of what the cost model may be wrong by (see :meth:`profiler.cost_model.CostModel.drawn`); None:
        none, the model as it was fitted. One draw for all candidates, as with the seed.
    """

    candidate: Candidate
    demand: Demand
    rate_per_s: float
    seed: int = 0
    goodput: GoodputRule | None = None
    cost_draw: int | None = None

    @property
    def key(self) -> str:
        """A text that equal trials alone share."""
        document: dict[str, Any] = {
            "candidate": self.candidate.as_dict(),
            "demand": self.demand.as_dict(),
            "rate_per_s": self.rate_per_s,
            "seed": self.seed,
            "goodput": None if self.goodput is None else str(self.goodput),
            "cost_draw": self.cost_draw,
        }
        return json.dumps(document, sort_keys=True)

    def run(self) -> Outcome:
        """Simulate.

        Raises
        ------
        InputError
            If the candidate cannot serve the demand.
        """
        scenario = self.candidate.scenario(self.demand.workload(self.rate_per_s, self.seed), seed=self.seed)
        if self.cost_draw is not None:
            scenario = replace(scenario, cluster=scenario.cluster.drawn(self.cost_draw))
        return Outcome.of(simulate_in_memory(scenario, self.candidate.choice), self.goodput)
