"""Outcomes made up from a formula in the rate, so that the true capacity is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import nan

from policies.catalog import choose
from simulator.capacity.saturation import ALL_AT_ONCE_PER_S
from simulator.trials.candidate import Candidate
from simulator.trials.demand import Demand
from simulator.trials.outcome import FIGURES, LATENCIES, Outcome
from simulator.trials.trial import Trial

CHAT = Demand(source="chat", num_prompts=50)
CANDIDATE = Candidate(choice=choose("sarathi-serve"), model="mistral-7b", device="a100-sxm", max_model_len=8192)


def made_up(
    tbt_s: float,
    *,
    delay_s: float = 0.001,
    service_per_s: float = nan,
    served_per_s: float = 1.0,
    present: Sequence[float] = (5.0,) * 20,
    requests: int = 2000,
    goodput: float = nan,
) -> Outcome:
    """Return an outcome in which every figure of a latency is the same."""
    seconds = dict.fromkeys(LATENCIES, 0.01) | {"TBT": tbt_s, "Scheduling delay": delay_s}
    metrics = {f"{name} {figure.upper()}": value for name, value in seconds.items() for figure in FIGURES}
    return Outcome(
        requests=requests,
        metrics=metrics | {"Requests/s": served_per_s, "Goodput": goodput},
        scheduling_delay_s=(delay_s,) * 20,
        ttft_s=(0.01,) * 20,
        present=tuple(present),
        offered_per_s=1.0,
        service_per_s=service_per_s,
    )


@dataclass
class MadeUp:
    """A runner: the P99 TBT over 100 ms is ``excess(rate, seed)``, and all requests at once are served at ``limit``."""

    excess: Callable[[float, int], float]
    limit: float = nan
    served: float = 1.0
    steps: list[list[Trial]] = field(default_factory=list)

    def __call__(self, trials: Sequence[Trial]) -> list[Outcome]:
        self.steps.append(list(trials))
        return [self._outcome(trial) for trial in trials]

    def _outcome(self, trial: Trial) -> Outcome:
        at_once = trial.rate_per_s == ALL_AT_ONCE_PER_S
        return made_up(
            0.1 * self.excess(trial.rate_per_s, trial.seed),
            service_per_s=self.limit if at_once else nan,
            served_per_s=self.served,
        )

    @property
    def trials(self) -> list[Trial]:
        """All trials that ran."""
        return [trial for step in self.steps for trial in step]

    @property
    def rates(self) -> list[float]:
        """All rates that were looked at."""
        return [trial.rate_per_s for trial in self.trials if trial.rate_per_s != ALL_AT_ONCE_PER_S]
