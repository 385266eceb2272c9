"""Which rows of a table of iterations are marked, and what the run then says of itself."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import numpy.typing as npt
import pytest

from profiler.aggregates import Aggregates, Columns, columns_of
from profiler.cost_model import CostModel
from profiler.deployment import Deployment
from profiler.measured_range import MeasuredRange
from profiler.transfer import load_fitted
from simulator.range_marks import RangeMarks
from traces.errors import InputError

LEAST, MOST = 100, 300
"""Contexts that were measured."""


@cache
def cost_model() -> CostModel:
    deployment = Deployment(model="llama-3.1-8b", device="a100-sxm")
    fitted = load_fitted(deployment.hardware)
    op = fitted.ops["decode_attention"]
    assert op.measured is not None
    limits = {**op.measured.limits, "decode_context": (float(LEAST), float(MOST))}
    ops = {**fitted.ops, "decode_attention": replace(op, measured=MeasuredRange(limits))}
    return CostModel(deployment, replace(fitted, ops=ops))


def decodes(contexts: list[int], stage_times_s: list[list[float]] | None = None) -> Columns:
    """Return iterations of one decode each with these contexts, each busy for a second unless said otherwise."""
    times_s = [[1.0] for _ in contexts] if stage_times_s is None else stage_times_s
    rows = [columns_of(Aggregates.of(decodes=1, context=context)) for context in contexts]
    return {
        **{name: np.concatenate([row[name] for row in rows]) for name in rows[0]},
        "stages": np.array([len(each) for each in times_s]),
        "stage_time_s": np.concatenate(times_s),
    }


def farthest(marks: RangeMarks) -> dict[str, float]:
    return {each["quantity"]: each["farthest"] for each in marks.as_dict()["limits"] if each["farthest"] is not None}


def limits_left(marks: RangeMarks, column: npt.NDArray[np.int32]) -> list[str]:
    limits = marks.as_dict()["limits"]
    return [limits[code - 1]["quantity"] if code else "" for code in column]


def test_rows_outside_are_marked_by_the_limit_that_they_leave() -> None:
    marks = RangeMarks(cost_model(), "vllm")
    column = marks.mark(decodes([200, 301, 300, 99]))
    assert column.dtype == np.int32
    assert limits_left(marks, column) == ["", "decode_context", "", "decode_context"]


def test_shares_are_over_all_tables_and_time_is_that_of_all_stages() -> None:
    marks = RangeMarks(cost_model(), "vllm")
    assert not marks.mark(decodes([200, 200], [[1.0], [2.0]])).any()
    marks.mark(decodes([400, 200, 500], [[1.0, 2.0], [4.0, 1.0], [0.5]]))
    said = marks.as_dict()
    assert said["iterations_share"] == 2 / 5
    assert said["time_share"] == 3.5 / 11.5
    assert farthest(marks) == {"decode_context": 500}


@pytest.mark.parametrize(
    ("tables", "expected"),
    [
        ([[400, 350], [320]], 400),
        ([[320], [400, 350]], 400),
        ([[90, 80], [99]], 80),
        ([[99], [80]], 80),
        ([[400], [80], [350]], 400),
        ([[80], [350]], 350),
    ],
)
def test_the_farthest_does_not_depend_on_the_order_of_the_tables(tables: list[list[int]], expected: float) -> None:
    marks = RangeMarks(cost_model(), "vllm")
    for contexts in tables:
        marks.mark(decodes(contexts))
    assert farthest(marks) == {"decode_context": expected}
    (said,) = [limit["said"] for limit in marks.as_dict()["limits"] if limit["said"] is not None]
    side = "beyond the 300" if expected > MOST else "below the 100"
    assert said == f"decode attention: decode context {expected}, {side} measured"


def test_strict_names_the_first_outside_by_its_number_in_the_run() -> None:
    marks = RangeMarks(cost_model(), "sarathi-serve", strict=True)
    assert marks.mark(decodes([200, 300, 100])).tolist() == [0, 0, 0]
    expected = (
        "--strict: iteration 5 under sarathi-serve: decode attention: decode context 301, beyond the 300 measured"
    )
    with pytest.raises(InputError, match=expected):
        marks.mark(decodes([200, 301, 50]))


def test_a_run_without_iterations_has_no_share_outside() -> None:
    said = RangeMarks(cost_model(), "vllm").as_dict()
    assert (said["iterations_share"], said["time_share"]) == (0, 0)
    assert all(limit["farthest"] is None and limit["said"] is None for limit in said["limits"])
