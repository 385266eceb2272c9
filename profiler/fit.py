"""Fitting a device: from the rows of a profile to coefficients, residuals and honest errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from profiler.bands import Bands
from profiler.errors import errors
from profiler.fitted import FittedDevice, FittedOp
from profiler.learning import fit_curves, fit_residual
from profiler.lint import COMPUTE, LINK, MEMORY, NO_TIME
from profiler.measured_range import MeasuredRange
from profiler.model import DTYPE_BYTES
from profiler.op import DECODE_ATTENTION, GEMM, OPS, PREFILL_ATTENTION, Op, Shape
from profiler.physics_fit import fit_physics
from profiler.surface import MOST_LAYOUTS, fit_surfaces
from profiler.tile import Floats
from traces.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

    from profiler.device import Device
    from profiler.profile import Profile

FEWEST_ROWS = 8
HELD_OUT_SHARE = 0.2
MOST_FOLDS = 3
MANY_GROUPS = 40
FEW_ROWS = 400
FOLDS_OF_FEW = 6
"""A small table is held out in full, a sixth at a time: its bands need every row."""
FEW_SHAPES = 64
LEAST_HELP = 0.9
SMALLEST_LAYER = 2**20
WIDEST_HEAD = 256


def fit(profile: Profile, device: Device, progress: Callable[[str], None] | None = None) -> FittedDevice:
    """Fit every op that ``profile`` holds enough rows of.

    Parameters
    ----------
    profile
        Linted measurements of ``device``.
    progress
        Told the name of each op before it is fitted.

    Raises
    ------
    InputError
        If no op has enough rows.
    """
    ops: dict[str, FittedOp] = {}
    for op in OPS.values():
        shape, time_s = rows_of(profile.table, op)
        if len(time_s) >= FEWEST_ROWS and trusted(profile, op.name):
            if progress is not None:
                progress(op.name)
            with _one_thread():
                ops[op.name] = fit_op(op, shape, time_s, device)
    if not ops:
        wish = f"at least {FEWEST_ROWS} rows of one of {', '.join(OPS)}"
        raise InputError("too few rows to fit", where="profile", expected=wish)
    return FittedDevice(device=device.name, origin=_origin(profile), ops=ops, overhead_s=_overhead(profile.table))


def _one_thread() -> AbstractContextManager[object]:
    """Hold the linear algebra to one thread: on small matrices more only wait, and round differently."""
    import scipy.optimize  # noqa: F401  (loads the libraries that are to be limited)
    import sklearn.gaussian_process  # noqa: F401
    import threadpoolctl

    limits: AbstractContextManager[object] = threadpoolctl.threadpool_limits(1)
    return limits


def trusted(profile: Profile, op: str) -> bool:
    """Return whether at most half of the op's rows beat the roofline: what survives of more is no sample."""
    reasons = (NO_TIME, MEMORY, COMPUTE, LINK)
    refused = sum(int(profile.meta["refused"].get(f"{op}: {reason}", 0)) for reason in reasons)
    rows = np.asarray(profile.table["op"].to_numpy(zero_copy_only=False) == op)
    return bool(refused <= rows.sum())


def _overhead(table: pa.Table) -> float | None:
    """Return the median of the rows that measure what an iteration costs beside its kernels, if there are any."""
    rows = np.asarray(table["op"].to_numpy(zero_copy_only=False) == "overhead")
    return float(np.median(table["time_s"].to_numpy()[rows])) if rows.any() else None


def fit_op(op: Op, shape: Shape, time_s: Floats, device: Device) -> FittedOp:
    """Fit one op and measure its errors on rows held out of fits made for that purpose.

    A residual that does not make unseen shapes a tenth better is left out, or counts for the layouts that were
    profiled alone: a table of few shapes often teaches none of others.
    """
    name, out = _held_out(op, shape)
    misses, helped = _unseen(op, shape, time_s, device, out)
    few = op.plane is not None and len(np.unique(op.groups(shape))) <= MOST_LAYOUTS
    with_residual = helped or few
    fitted = fit_rows(op, shape, time_s, device, with_residual=with_residual)
    fitted = replace(fitted, profiled_alone=with_residual and not helped)
    kinds = {name: misses}
    if op.axis is not None or few:
        kinds["profiled shapes"] = _between(op, shape, time_s, device, with_residual)
    kinds = {kind: pair for kind, pair in kinds.items() if len(pair[0])}
    misses_of = {kind: errors(measured, predicted) for kind, (measured, predicted) in kinds.items()}
    widths_of = {kind: Bands.of(measured, predicted) for kind, (measured, predicted) in kinds.items()}
    measured = MeasuredRange.of(op.name, shape)
    return replace(fitted, rows=len(time_s), errors=misses_of, bands=widths_of, measured=measured)


def rows_of(table: pa.Table, op: Op) -> tuple[dict[str, Any], Floats]:
    """Return the shape columns and times of one op, equal shapes once, with their median (or best) time.

    Of an all-reduce that was measured with several kernels the fastest counts: engines choose by size.
    Sixteen-bit rows are preferred where a profile holds several types. Chunks of one token run a decode
    kernel and are left out, and so are heads wider than FlashAttention takes.
    """
    rows = table.filter(np.asarray(table["op"].to_numpy(zero_copy_only=False) == op.name))
    dtype = rows["dtype"].to_numpy(zero_copy_only=False)
    width = np.asarray([float(DTYPE_BYTES.get(str(name), 2)) for name in dtype])
    keep = width == width.min() if len(width) else np.zeros(0, dtype=np.bool_)
    if op is PREFILL_ATTENTION and len(width):
        keep &= rows["query_tokens"].to_numpy() > 1
    if op in (PREFILL_ATTENTION, DECODE_ATTENTION) and len(width):
        keep &= rows["head_dim"].to_numpy() <= WIDEST_HEAD
    time_s = rows["time_s"].to_numpy().astype(np.float64)[keep]
    columns: dict[str, Any] = {}
    for key in op.keys:
        values = width if key == "element_bytes" else rows[key].to_numpy(zero_copy_only=False)
        columns[key] = values[keep] if key == "kind" else values[keep].astype(np.float64)
    return _once(columns, time_s, np.min if op.name == "all_reduce" else np.median)


def _once(columns: dict[str, Any], time_s: Floats, reduce: Callable[[Floats], Any]) -> tuple[dict[str, Any], Floats]:
    if not len(time_s):
        return columns, time_s
    codes = [np.unique(values, return_inverse=True)[1] for values in columns.values()]
    _, first, inverse = np.unique(np.stack(codes, axis=1), axis=0, return_index=True, return_inverse=True)
    order = np.argsort(inverse.ravel(), kind="stable")
    ends = np.flatnonzero(np.diff(inverse.ravel()[order])) + 1
    times = np.asarray([reduce(part) for part in np.split(time_s[order], ends)], dtype=np.float64)
    return {key: values[first] for key, values in columns.items()}, times


def fit_rows(
    op: Op, shape: Shape, time_s: Floats, device: Device, *, with_residual: bool = True, transferable: bool = True
) -> FittedOp:
    """Fit one op to rows alone: coefficients and corrections, without errors and bands (see :func:`fit_op`).

    Without ``transferable`` it is for ``device`` alone.
    """
    coefficients = fit_physics(op, shape, time_s, device, transferable=transferable)
    log_ratio = np.log(time_s / op.physics(coefficients, shape, device))
    residual = None
    if with_residual and op.features is not None:
        features = op.residual_features(coefficients, shape, device)
        residual = fit_residual(features, log_ratio, op.groups(shape), one_length_scale=op.one_length_scale)
    fitted = FittedOp(name=op.name, coefficients=coefficients, residual=residual)
    if op.plane is not None:
        left = log_ratio - fitted.correction(shape, device)
        return replace(fitted, surfaces=fit_surfaces(op.groups(shape), op.plane(shape), left))
    if op.axis is None:
        return fitted
    layers = _layers(op, shape)
    shape, log_ratio = _take(shape, layers), log_ratio[layers]
    left = log_ratio - fitted.correction(shape, device)
    curves = fit_curves(op.curve_of(shape), op.axis(shape), left)
    return replace(fitted, curves=curves)


def _layers(op: Op, shape: Shape) -> npt.NDArray[np.bool_]:
    """Return the rows that get a curve: of a full grid of GEMMs only matrices that are as large as layers."""
    rows = np.ones(len(shape[op.keys[-1]]), dtype=np.bool_)
    if op is not GEMM or len(np.unique(op.groups(shape))) <= FEW_SHAPES:
        return rows
    return rows & (shape["n"] * shape["k"] >= SMALLEST_LAYER)


def _held_out(op: Op, shape: Shape) -> tuple[str, list[npt.NDArray[np.bool_]]]:
    """Return what is held out, and the rows of each fold: whole groups, or rows where there is one group only."""
    groups, kind = op.groups(shape), "unseen shapes"
    if len(np.unique(groups)) < 2:
        groups, kind = np.arange(len(groups), dtype=np.float64), "unseen rows"
    names = np.random.default_rng(0).permutation(np.unique(groups))
    few = len(groups) <= FEW_ROWS
    folds = np.array_split(names, min(len(names), FOLDS_OF_FEW if few else round(1 / HELD_OUT_SHARE)))
    most = len(folds) if few else MOST_FOLDS if len(names) < MANY_GROUPS else 1
    return kind, [np.isin(groups, fold) for fold in folds[:most]]


def _unseen(
    op: Op, shape: Shape, time_s: Floats, device: Device, folds: list[npt.NDArray[np.bool_]]
) -> tuple[tuple[Floats, Floats], bool]:
    """Return measured and predicted times of rows that a fit did not see, and whether its residual helped."""
    measured, corrected, bare = [], [], []
    for out in folds:
        fitted = fit_rows(op, _take(shape, ~out), time_s[~out], device, transferable=False)
        measured.append(time_s[out])
        corrected.append(fitted.predict(_take(shape, out), device))
        bare.append(op.physics(fitted.coefficients, _take(shape, out), device))
    known, better, plain = (np.concatenate(part) for part in (measured, corrected, bare))
    corrected_miss, bare_miss = (float(np.abs(np.log(known / each)).mean()) for each in (better, plain))
    helped = corrected_miss < LEAST_HELP * bare_miss
    return (known, better if helped else plain), helped


def _between(op: Op, shape: Shape, time_s: Floats, device: Device, with_residual: bool) -> tuple[Floats, Floats]:
    """Return measured and predicted times of every other point of each profiled shape, from a fit to the rest."""
    layers = _layers(op, shape)
    if not layers.any():
        return np.zeros(0), np.zeros(0)
    out = every_other(op, shape) & layers
    rest = _take(shape, ~out)
    fitted = fit_rows(op, rest, time_s[~out], device, with_residual=with_residual, transferable=False)
    known = [each.points for each in (fitted.curves, fitted.surfaces) if each is not None]
    out &= np.isin(op.curve_of(shape), list(known[0]) if known else [])
    return time_s[out], fitted.predict(_take(shape, out), device)


def every_other(op: Op, shape: Shape) -> npt.NDArray[np.bool_]:
    """Return every second point of each curve or surface, [rows]."""
    lines = op.curve_of(shape)
    columns = op.plane(shape).T if op.plane is not None else [op.axis(shape)] if op.axis is not None else []
    order = np.lexsort([*columns[::-1], lines])
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    first = {line: place[lines == line].min() for line in np.unique(lines)}
    return np.asarray([(here - first[line]) % 2 == 1 for here, line in zip(place, lines, strict=True)])


def _take(shape: Shape, rows: Any) -> dict[str, Any]:
    return {key: values[rows] for key, values in shape.items()}


def _origin(profile: Profile) -> Mapping[str, Any]:
    import scipy
    import sklearn

    return {
        "measurements": dict(getattr(profile, "meta", {})),
        "fitted_with": {
            "numpy": np.__version__,
            "scipy": scipy.__version__,
            "scikit-learn": sklearn.__version__,
        },
    }
