"""The ops a cost model knows: for each, its physics and what a residual may look at."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from profiler import communication, decode_attention, elementwise, gemm, gemm_kernel, mixed_attention, prefill_attention
from profiler.tile import Floats

if TYPE_CHECKING:
    from profiler.device import Device

Shape = Mapping[str, npt.NDArray[Any]]
Physics = Callable[[Mapping[str, float], Shape, "Device"], Floats]
OnDevice = Callable[[Shape, "Device"], Floats]
OfShape = Callable[[Shape], Floats]


@dataclass(frozen=True, kw_only=True)
class Op:
    """How one kind of op is modelled.

    Attributes
    ----------
    name
        As in the ``op`` column of a profile.
    keys
        The columns of a profile that make up a shape (``element_bytes`` follows from ``dtype``).
    coefficients
        Names of the numbers that ``physics`` takes, in order.
    own_coefficients
        Names of further ones, which hold on the device that they were fitted to alone; where there, ``physics``
        goes by them.
    physics
        (coefficients, shape, device) -> seconds.
    terms
        (shape, device) -> [rows, coefficients] seconds, where the time is linear in the coefficients.
    features
        (shape, device) -> [rows, features] for the residual; None if the op needs none.
    choice
        (coefficients, shape, device) -> [rows, features] of what the physics by own coefficients chose, for the
        residual too.
    one_length_scale
        Whether a residual of few rows counts all features alike: few rows cannot tell many features apart.
    groups
        shape -> one number for each shape that is profiled as one (a layer of a model, a head layout).
    axis
        shape -> where a row lies on its curve; None if the op has no curves.
    lines
        shape -> one number for each curve; None: its groups.
    plane
        shape -> [rows, dimensions], in doublings, where a row lies on its group's surface; None if it has none.
    """

    name: str
    keys: tuple[str, ...]
    coefficients: tuple[str, ...]
    own_coefficients: tuple[str, ...] = ()
    physics: Physics
    terms: OnDevice | None = None
    features: OnDevice | None = None
    choice: Physics | None = None
    one_length_scale: bool = False
    groups: OfShape
    axis: OfShape | None = None
    lines: OfShape | None = None
    plane: OfShape | None = None

    def curve_of(self, shape: Shape) -> Floats:
        """Return the number of each row's curve, [rows]."""
        return (self.lines or self.groups)(shape)

    def residual_features(self, coefficients: Mapping[str, float], shape: Shape, device: Device) -> Floats:
        """Return [rows, features] for the residual of the physics with ``coefficients``."""
        if self.features is None:
            raise ValueError(f"{self.name} has no features")
        features = self.features(shape, device)
        if self.choice is None or self.own_coefficients[0] not in coefficients:
            return features
        return np.concatenate([features, self.choice(coefficients, shape, device)], axis=1)


def _tokens(shape: Shape) -> Floats:
    return np.asarray(shape["m"], dtype=np.float64)


def _head_layout(shape: Shape) -> Floats:
    """Return one number a head layout: rows of one number belong to one model and degree of parallelism."""
    return np.asarray((shape["heads"] * 4096 + shape["kv_heads"]) * 4096 + shape["head_dim"], dtype=np.float64)


def _one_group(shape: Shape) -> Floats:
    return np.zeros(len(shape["size_bytes"]))


GEMM = Op(
    name=gemm.OP,
    keys=gemm.KEYS,
    coefficients=gemm.NAMES,
    own_coefficients=gemm_kernel.NAMES,
    physics=gemm.physics,
    features=gemm.features,
    choice=gemm_kernel.choice,
    one_length_scale=True,
    groups=gemm.groups,
    axis=_tokens,
)
PREFILL_ATTENTION = Op(
    name=prefill_attention.OP,
    keys=prefill_attention.KEYS,
    coefficients=prefill_attention.NAMES,
    physics=prefill_attention.physics,
    features=prefill_attention.features,
    groups=_head_layout,
    plane=prefill_attention.plane,
)
DECODE_ATTENTION = Op(
    name=decode_attention.OP,
    keys=decode_attention.KEYS,
    coefficients=decode_attention.NAMES,
    physics=decode_attention.physics,
    features=decode_attention.features,
    groups=_head_layout,
    plane=decode_attention.plane,
)
MIXED_ATTENTION = Op(
    name=mixed_attention.OP,
    keys=mixed_attention.KEYS,
    coefficients=mixed_attention.NAMES,
    physics=mixed_attention.physics,
    terms=mixed_attention.terms,
    features=mixed_attention.features,
    groups=_head_layout,
    plane=mixed_attention.plane,
)
ELEMENTWISE = Op(
    name=elementwise.OP,
    keys=elementwise.KEYS,
    coefficients=elementwise.NAMES,
    physics=elementwise.physics,
    terms=elementwise.terms,
    groups=elementwise.sizes,
    axis=elementwise.sizes,
    lines=elementwise.lines,
)
ALL_REDUCE = Op(
    name=communication.OP,
    keys=communication.KEYS,
    coefficients=communication.NAMES,
    physics=communication.physics,
    terms=communication.terms,
    groups=communication.groups,
    axis=communication.axis,
)
SEND = Op(
    name=communication.SEND,
    keys=("size_bytes",),
    coefficients=communication.SEND_NAMES,
    physics=communication.send_physics,
    terms=communication.send_terms,
    groups=_one_group,
)
OPS: Mapping[str, Op] = {
    op.name: op for op in (GEMM, PREFILL_ATTENTION, DECODE_ATTENTION, MIXED_ATTENTION, ELEMENTWISE, ALL_REDUCE, SEND)
}
