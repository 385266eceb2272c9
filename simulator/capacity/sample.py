"""A trial of a search, judged."""

from __future__ import annotations

from dataclasses import dataclass

from simulator.capacity.saturation import SATURATION
from simulator.capacity.service import Service
from simulator.capacity.slo import Slo
from simulator.trials.outcome import Outcome


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A trial at a rate, and whether that is within the capacity.

    Attributes
    ----------
    margin
        By how much the SLO is missed (:meth:`Slo.margin`); where it is kept but the rate is too high to be kept up for
        ever, by how much that is (:meth:`Service.excess`).
    bound_by
        What is missed by most, or kept by least: a part of the SLO, or ``saturation``.
    worst
        The part of the SLO with its value, as people say it.
    """

    rate_per_s: float
    seed: int
    margin: float
    bound_by: str
    worst: str
    outcome: Outcome

    @classmethod
    def of(cls, outcome: Outcome, rate_per_s: float, seed: int, slo: Slo, service: Service) -> Sample:
        """Judge what came of a rate."""
        margin, excess = slo.margin(outcome), service.excess(rate_per_s, outcome)
        saturated = margin <= 0 < excess
        return cls(
            rate_per_s=rate_per_s,
            seed=seed,
            margin=excess if saturated else margin,
            bound_by=SATURATION if saturated else slo.bound_by(outcome),
            worst=slo.worst(outcome),
            outcome=outcome,
        )

    @property
    def holds(self) -> bool:
        """Whether the rate is within the capacity of this seed."""
        return self.margin <= 0
