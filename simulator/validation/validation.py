"""What a validation found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from simulator.validation.agreement import Case, IterationErrors
from simulator.validation.ranking import Order, Winner
from traces.metrics import without_nan

SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One sentence of the verdict.

    Attributes
    ----------
    subject
        What was asked, in a few words.
    holds
        Whether the prediction holds there; None where nothing was promised.
    text
        The answer, with the worst case and its figures.
    """

    subject: str
    holds: bool | None
    text: str


@dataclass(frozen=True, kw_only=True)
class Validation:
    """The simulator judged against measured runs of the engine.

    Attributes
    ----------
    cases
        Every load under every policy, load by load.
    errors, by_kind
        Errors of the iteration times over all cases, and by kind of batch.
    steady_errors
        The same, had the predictions not known how the machine's pace changed.
    winners, best_measured, best_predicted
        The best policy of each load, and over all loads (:func:`simulator.validation.ranking.overall`).
    orders
        Metric -> "all" or a load -> whether the order of the cases, or of the policies, agrees.
    noise
        Share within which measured figures count as equal.
    verdict
        What holds and what falls short, in words; the first sentence sums up.
    provenance
        What was run, on what: JSON values.
    """

    cases: tuple[Case, ...]
    errors: IterationErrors
    steady_errors: IterationErrors
    by_kind: Mapping[str, IterationErrors]
    winners: Mapping[str, Winner]
    best_measured: str
    best_predicted: str
    orders: Mapping[str, Mapping[str, Order]]
    noise: float
    verdict: tuple[Finding, ...]
    provenance: Mapping[str, Any]

    @property
    def iteration_error(self) -> float:
        """Median over all measured iterations of \\|predicted / measured - 1\\|."""
        return self.errors.median

    @property
    def holds(self) -> bool:
        """Whether everything that was promised holds."""
        return all(finding.holds is not False for finding in self.verdict)

    @property
    def loads(self) -> tuple[str, ...]:
        """The loads, lowest first."""
        return tuple(self.winners)

    @property
    def policies(self) -> tuple[str, ...]:
        """The policies, by label."""
        return tuple(dict.fromkeys(case.policy for case in self.cases))

    def case(self, load: str, policy: str) -> Case:
        """Return one case."""
        return next(case for case in self.cases if (case.load, case.policy) == (load, policy))

    def as_dict(self) -> dict[str, Any]:
        """Return the content of ``validation.json``; null where there is no value."""
        document = {
            "schema_version": SCHEMA_VERSION,
            "holds": self.holds,
            "verdict": [asdict(finding) for finding in self.verdict],
            "iteration_error": self.iteration_error,
            "errors": asdict(self.errors),
            "steady_errors": asdict(self.steady_errors),
            "by_kind": {name: asdict(errors) for name, errors in self.by_kind.items()},
            "best_measured": self.best_measured,
            "best_predicted": self.best_predicted,
            "winners": {load: {**asdict(each), "agree": each.agree} for load, each in self.winners.items()},
            "orders": {name: {scope: asdict(o) for scope, o in own.items()} for name, own in self.orders.items()},
            "noise": self.noise,
            "cases": [case.as_dict() for case in self.cases],
            "provenance": dict(self.provenance),
        }
        known: dict[str, Any] = without_nan(document)
        return known
