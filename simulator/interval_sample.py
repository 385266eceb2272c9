"""How sure a cost model is of the iterations that a simulation ran."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from policies.batch import Batch
    from profiler.cost_model import CostModel
    from simulator.flight import Flight

COVERAGE = 0.9
MOST = 128
"""An interval takes many times as long as a prediction, and much the same batches come again and again."""


class IntervalSample:
    """Keeps up to 128 iterations, evenly spaced over a run of any length, and asks for their intervals at its end.

    Parameters
    ----------
    cost_model
        Whose :meth:`profiler.cost_model.CostModel.interval` is asked.
    """

    def __init__(self, cost_model: CostModel) -> None:
        self._cost_model = cost_model
        self._kept: list[tuple[Batch, Sequence[float]]] = []
        self._step = self._until = 1

    def take(self, flight: Flight) -> None:
        """Note the iterations of a flight."""
        self._until -= len(flight.ends_s)
        while self._until <= 0:
            self._keep(flight, len(flight.ends_s) - 1 + self._until)
            self._until += self._step

    def _keep(self, flight: Flight, turn: int) -> None:
        self._kept.append((flight.at_turn(turn), flight.stage_time_s_of(turn)))
        if len(self._kept) == MOST:
            self._kept, self._step = self._kept[1::2], 2 * self._step

    def as_dict(self) -> dict[str, Any] | None:
        """Return ``low`` and ``high``, between which times lie as multiples of those predicted; None without any."""
        time_s = sum(sum(stage_time_s) for _, stage_time_s in self._kept)
        if not time_s:
            return None
        bands = [
            self._cost_model.interval(batch, COVERAGE, stage)
            for batch, stage_time_s in self._kept
            for stage in range(len(stage_time_s))
        ]
        low_s, high_s = (sum(each) for each in zip(*bands, strict=True))
        return {"coverage": COVERAGE, "low": low_s / time_s, "high": high_s / time_s, "iterations": len(self._kept)}
