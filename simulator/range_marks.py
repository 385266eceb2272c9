"""Which iterations of a simulation rest on batches that nobody measured, and what that says of the run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from traces.errors import InputError

if TYPE_CHECKING:
    from profiler.aggregates import Columns
    from profiler.cost_model import CostModel
    from profiler.tile import Floats

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
    """Marks the iterations of a run, a table of them at a time.

    Parameters
    ----------
    cost_model
        Where their times come from.
    policy
        Name of the policy whose batches they are.
    strict
        Whether the first one outside is an error.
    """

    def __init__(self, cost_model: CostModel, policy: str, *, strict: bool = False) -> None:
        self._range = cost_model.profiled_range()
        self._policy, self._strict = policy, strict
        self._iterations = self._outside = 0
        self._time_s = self._outside_s = 0.0
        self._farthest: dict[int, float] = {}

    def mark(self, columns: Columns) -> npt.NDArray[np.int32]:
        """Return the column ``outside`` of the next iterations of the run.

        Parameters
        ----------
        columns
            What :meth:`profiler.profiled_range.ProfiledRange.leaves` takes, each column [iterations]; the number of
            their ``stages``, and for how long each of these is busy, one iteration after the other, in
            ``stage_time_s``.

        Returns
        -------
        int32 [iterations]
            0 within the range, else which limit is left, counted from 1.

        Raises
        ------
        InputError
            If one is outside and they are to be refused.
        """
        index, value = self._range.leaves(columns)
        outside = index >= 0
        if self._strict and outside.any():
            raise self._refused(outside.argmax(), index, value)
        stages = columns["stages"]
        time_s = np.add.reduceat(columns["stage_time_s"], np.cumsum(stages) - stages)
        self._iterations += len(index)
        self._outside += int(outside.sum())
        self._time_s += float(time_s.sum())
        self._outside_s += float(time_s[outside].sum())
        for number in np.unique(index[outside]):
            self._note_farthest(int(number), value[index == number])
        return (index + 1).astype(np.int32)

    def _refused(self, row: np.intp, index: npt.NDArray[np.int64], value: Floats) -> InputError:
        said = self._range.limits[index[row]].told(float(value[row]))
        what = f"iteration {self._iterations + row + 1} under {self._policy}: {said}"
        return InputError(what, where="--strict", expected=WISH)

    def _note_farthest(self, number: int, values: Floats) -> None:
        """Keep the farthest value beyond the most of a limit; where none is beyond it, that below its least."""
        known = [self._farthest[number]] if number in self._farthest else []
        least, most = min([float(values.min()), *known]), max([float(values.max()), *known])
        self._farthest[number] = most if most > self._range.limits[number].most else least

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
        return {
            "iterations_share": self._outside / max(self._iterations, 1),
            "time_share": self._outside_s / self._time_s if self._time_s else 0.0,
            "unmeasured": self._range.unmeasured,
            "limits": limits,
        }
