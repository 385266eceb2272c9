"""Which iterations of a simulation rest on batches that nobody measured, and what that says of the run."""

from __future__ import annotations

from collections import defaultdict
from math import fsum
from typing import TYPE_CHECKING, Any

from traces.errors import InputError

if TYPE_CHECKING:
    from policies.batch import Batch
    from policies.catalog import PolicyChoice
    from profiler.cost_model import CostModel
    from simulator.flight import Flight

WISH = "batches within what was measured: measure further, or leave --strict out to have them marked"


def check_measured(cost_model: CostModel) -> None:
    """Refuse a cost model that rests on another device's measurements, before anything is simulated by it.

    Raises
    ------
    InputError
        If an op of the deployment was not measured on its device.
    """
    refusal = cost_model.profiled_range().refusal()
    if refusal is not None:
        raise InputError(refusal, where="--strict", expected="a profile of the device (--profile)")


class RangeMarks:
    """Marks iterations as they end.

    Parameters
    ----------
    cost_model
        Where their times come from.
    choice, longest
        The policy whose batches they are, and its longest context in tokens: where no batch of decodes alone can be
        outside, none is looked at.
    strict
        Whether the first one outside is an error.
    """

    def __init__(self, cost_model: CostModel, choice: PolicyChoice, longest: int, *, strict: bool = False) -> None:
        self._range = cost_model.profiled_range()
        self._policy, self._strict = choice.name, strict
        self._decodes_fit = self._range.holds_decodes(choice.settings.max_num_seqs, longest)
        self._iterations = self._outside = 0
        self._time_s: defaultdict[int, float] = defaultdict(float)
        self._outside_s: defaultdict[int, float] = defaultdict(float)
        self._farthest: dict[int, float] = {}

    def mark(self, flight: Flight, replica: int = 0) -> list[int]:
        """Return for each time that a flight ran 0 if within the range, else which limit it leaves, counted from 1.

        Times are added up by ``replica``, so that it does not matter in which order several of them report.

        Raises
        ------
        InputError
            If there is one and they are to be refused.
        """
        times = len(flight.ends_s)
        if self._decodes_fit and not flight.batch.chunks:
            self._iterations += times
            total_s = self._time_s[replica]
            for time_s in flight.stage_time_s:
                total_s += time_s
            self._time_s[replica] = total_s
            return [0] * times
        return [self._mark(flight.at_turn(turn), sum(flight.stage_time_s_of(turn)), replica) for turn in range(times)]

    def _mark(self, batch: Batch, time_s: float, replica: int) -> int:
        self._iterations += 1
        self._time_s[replica] += time_s
        found = self._range.leaves(batch)
        if found is None:
            return 0
        index, value = found
        if self._strict:
            what = f"iteration {self._iterations} under {self._policy}: {self._range.limits[index].told(value)}"
            raise InputError(what, where="--strict", expected=WISH)
        self._outside += 1
        self._outside_s[replica] += time_s
        known = self._farthest.get(index, value)
        self._farthest[index] = max(known, value) if value > self._range.limits[index].most else min(known, value)
        return index + 1

    def as_dict(self) -> dict[str, Any]:
        """Return what ``run.json`` says: shares of iterations and of their time, and each limit as it was left."""
        limits = [
            {
                "op": limit.op,
                "quantity": limit.quantity,
                "least": limit.least,
                "most": limit.most,
                "farthest": self._farthest.get(index),
                "said": limit.told(self._farthest[index]) if index in self._farthest else None,
            }
            for index, limit in enumerate(self._range.limits)
        ]
        time_s, outside_s = (fsum(times_s.values()) for times_s in (self._time_s, self._outside_s))
        return {
            "iterations_share": self._outside / max(self._iterations, 1),
            "time_share": outside_s / time_s if time_s else 0.0,
            "unmeasured": self._range.unmeasured,
            "limits": limits,
        }
