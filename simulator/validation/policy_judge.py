"""From measured runs of the settings that a search predicted to what they say of the prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf, nan
from typing import Any

from policies.blocks import KVMemory
from policies.catalog import PolicyChoice
from policies.prediction import Foretold, Interval, Prediction
from profiler.cost_model import CostModel
from profiler.deployment import Deployment
from simulator.capacity.slo import Slo
from simulator.cluster import Cluster
from simulator.prediction import DRAWS, PREDICTED, intervals
from simulator.simulation import Scenario, simulate_in_memory
from simulator.trials.outcome import Outcome
from simulator.validation.agreement import IterationErrors
from simulator.validation.audit import audit
from simulator.validation.policy_order import Values, deciding, metric_orders, preferences
from simulator.validation.policy_slo import kept
from simulator.validation.policy_validation import JudgedSetting, PolicyValidation, Promise
from simulator.validation.policy_verdict import policy_verdict
from traces.goodput import GoodputRule
from traces.run_log import describe_workload
from traces.run_record import RunRecord
from traces.workload import Workload

Runs = Mapping[str, Sequence[RunRecord]]
"""Label -> the measured runs of a setting, in turn."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PolicyJudge:
    """Judges a prediction by measured runs of its settings; writes nothing.

    Attributes
    ----------
    deployment, memory, cost_model, seed
        As :class:`simulator.validation.judge.Judge` has them.
    workload
        What was predicted about and served.
    goodput
        Targets whose share of requests was predicted.
    slo
        What was to be kept; None where nothing was.
    """

    deployment: Deployment
    memory: KVMemory
    cost_model: CostModel
    seed: int
    workload: Workload
    goodput: GoodputRule | None
    slo: Slo | None

    def judged(
        self,
        prediction: Prediction,
        runs: Runs,
        drift: Mapping[str, float],
        others: Mapping[str, float],
        command: str,
    ) -> PolicyValidation:
        """Return what ``runs`` say; ``drift`` and ``others`` are those of settings, by label."""
        settings = tuple(
            self._setting(label, foretold, runs[label], drift.get(label), others.get(label), prediction.coverage)
            for label, foretold in prediction.labelled.items()
        )
        predicted = {each.label: {one.metric: (one.predicted.value,) for one in each.promises} for each in settings}
        measured = {each.label: {one.metric: one.measured for one in each.promises} for each in settings}
        everywhere: list[Values] = [*predicted.values(), *measured.values()]
        found = preferences(predicted, measured, deciding(prediction.objective.get("name"), everywhere))
        orders = metric_orders(predicted, measured)
        provenance = self._provenance(prediction, runs, command)
        return PolicyValidation(
            settings=settings,
            coverage=prediction.coverage,
            preferences=found,
            orders=orders,
            verdict=policy_verdict(settings, prediction, found, orders),
            provenance=provenance,
        )

    def _setting(
        self,
        label: str,
        foretold: Foretold,
        runs: Sequence[RunRecord],
        drift: float | None,
        others: float | None,
        coverage: float,
    ) -> JudgedSetting:
        choice = foretold.choice
        measured = [Outcome.of(run, self.goodput) for run in runs]
        now = self._metrics(choice, self.cost_model)
        paced = {} if drift is None else self._at_pace(choice, 1 + drift, coverage)
        promises = tuple(
            Promise(
                metric=name,
                predicted=estimate,
                at_pace=paced.get(name),
                measured=tuple(each.metrics.get(name, nan) for each in measured),
            )
            for name, estimate in foretold.metrics.items()
            if name in PREDICTED
        )
        audits = [audit(run.iterations, self.workload, choice, self.memory, self.cost_model) for run in runs]
        return JudgedSetting(
            label=label,
            policy=replace(choice, predicted={}).as_dict(),
            promises=promises,
            drift=drift,
            others=others,
            errors=IterationErrors.of(audits),
            kept=None if self.slo is None else kept(self.slo, foretold.metrics, measured),
            deviation=max((_off(each.predicted, now.get(each.metric, nan)) for each in promises), default=0.0),
        )

    def _metrics(self, choice: PolicyChoice, cost_model: CostModel) -> Mapping[str, float]:
        cluster = Cluster.single(self.deployment, cost_model, self.memory, told=self.cost_model)
        scenario = Scenario(workload=self.workload, cluster=cluster, seed=self.seed)
        return Outcome.of(simulate_in_memory(scenario, choice), self.goodput).metrics

    def _at_pace(self, choice: PolicyChoice, pace: float, coverage: float) -> dict[str, Interval]:
        """Return what is predicted for a machine that takes ``pace`` times as long as it was measured."""
        cost_model = self.cost_model.at_pace(pace)
        drawn = [self._metrics(choice, cost_model.drawn(draw)) for draw in range(DRAWS)]
        return intervals(self._metrics(choice, cost_model), drawn, coverage)

    def _provenance(self, prediction: Prediction, runs: Runs, command: str) -> dict[str, Any]:
        first = next(iter(runs.values()))[0].meta
        return {
            "deployment": first.groups[0].deployment,
            "versions": first.versions,
            "kv_blocks": first.kv_blocks,
            "block_size": first.block_size,
            "replays": len(next(iter(runs.values()))),
            "workload": describe_workload(self.workload),
            "drawn": dict(prediction.workload),
            "profile": prediction.profile,
            "slo": prediction.slo,
            "objective": dict(prediction.objective),
            "why": prediction.why,
            "searched_by": prediction.command,
            "cost_model": self.cost_model.describe(),
            "command": command,
        }


def _off(estimate: Interval, now: float) -> float:
    if now == estimate.value:
        return 0.0
    return abs(now / estimate.value - 1) if estimate.value else inf
