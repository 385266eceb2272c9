"""Draws of what a cost model may be wrong by: one factor for each group of ops, common to all iterations.

A fit errs systematically: a kernel that it takes for too fast is too fast in every layer and every iteration, so
that the errors of a run do not average out. Different kernels err independently of each other. The half width that
holds 90 % of a fit's held-out rows is taken for that of a normal distribution in log time.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import exp
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np

from profiler.aggregates import Aggregates, Slice
from traces.errors import InputError

if TYPE_CHECKING:
    from profiler.fitted import FittedOp

STREAM = 0xC057
"""Keeps these draws apart from all others of the same seed."""
COVERAGE = 0.9
DEVIATIONS = 1.6449
"""Half the range of the middle 90 % of a normal distribution, in standard deviations."""
CHUNK, DECODES, CONTEXT = Slice(512, 512), 64, 1024
TYPICAL = (
    Aggregates(chunks=(CHUNK,)),
    Aggregates(decodes=DECODES, outputs=DECODES, decode_context_sum=DECODES * CONTEXT, decode_context_max=CONTEXT),
    Aggregates(
        chunks=(CHUNK,),
        decodes=DECODES,
        outputs=DECODES,
        decode_context_sum=DECODES * CONTEXT,
        decode_context_max=CONTEXT,
    ),
)
"""Bands depend on predicted times: those in the last of these batches that has the group count, whatever a simulation
runs, so that a draw means the same for all policies."""
GROUPS = (
    "linear",
    "prefill attention",
    "decode attention",
    "mixed attention",
    "head",
    "communication",
    "overhead",
    "iteration",
)
"""Each draws by its place in this list. Mixed attention: chunks and decodes in one launch. Iteration: everything."""
EXACT: Mapping[str, float] = dict.fromkeys(GROUPS[:-1], 1.0)
"""The factors of a cost model that has nothing drawn."""


def widths_s(
    parts: Mapping[str, float],
    ops: Mapping[str, FittedOp],
    coverage: float,
    *,
    spread_s: float,
    matrices: int,
    layers: int,
    one_launch: bool,
) -> dict[str, float]:
    """Return half the widths of the bands around the times of a batch, in seconds, for each group that has one.

    A kernel repeats in every layer with the same error, so within a group widths add; matrices err independently
    of each other, so between them squares add.

    Parameters
    ----------
    parts
        Seconds of the groups of :meth:`profiler.cost_model.CostModel.breakdown`.
    ops
        Each brings the half width, in log time, that held a share ``coverage`` of its held-out rows.
    spread_s
        Root of the sum of squares of the parts of the linear layers.
    matrices, layers
        How many a layer has, and the stage.
    one_launch
        Whether chunks and decodes attend together.
    """
    found = {"linear": spread_s * ops["gemm"].band(coverage, parts["linear"] / (matrices * layers))}
    for group, seconds in _attention_s(parts, one_launch=one_launch).items():
        found[group] = seconds * ops[group.replace(" ", "_")].band(coverage, seconds / layers)
    communication_s = parts["communication"]
    found["head"] = parts["head"] * ops["gemm"].band(coverage, parts["head"])
    found["communication"] = communication_s * ops["all_reduce"].band(coverage, communication_s / (2 * layers))
    return found


def relative(widths: Mapping[str, float], parts: Mapping[str, float]) -> dict[str, float]:
    """Return :func:`widths_s` as shares of the seconds of their groups, without those of groups that take none."""
    seconds = {**parts, **_attention_s(parts, one_launch="mixed attention" in widths)}
    return {group: width / seconds[group] for group, width in widths.items() if seconds[group] > 0}


def _attention_s(parts: Mapping[str, float], *, one_launch: bool) -> dict[str, float]:
    prefill_s, decode_s = parts["prefill attention"], parts["decode attention"]
    if one_launch:
        return {"mixed attention": prefill_s + decode_s}
    return {"prefill attention": prefill_s, "decode attention": decode_s}


def drawn_factors(widths: Mapping[str, float], device: str, draw: int) -> dict[str, float]:
    """Return by what to multiply each group of ops.

    Parameters
    ----------
    widths
        Half the width, in log time, of the band of 90 % around each group's time; groups without one are exact.
        That of ``iteration`` counts for all.
    device
        Whose fit it is: equal draws of two devices are independent.
    draw
        Which one (>= 0).

    Raises
    ------
    InputError
        If ``draw`` is negative.
    """
    if draw < 0:
        raise InputError(f"draw {draw} of a cost model", expected="0 or more")
    found = {group: exp(_deviation(device, draw, group) * width / DEVIATIONS) for group, width in widths.items()}
    everything = found.pop("iteration", 1.0)
    return {group: everything * found.get(group, 1.0) for group in EXACT}


def _deviation(device: str, draw: int, group: str) -> float:
    seed: list[Any] = [STREAM, crc32(device.encode()), draw, GROUPS.index(group)]
    return float(np.random.default_rng(seed).standard_normal())
