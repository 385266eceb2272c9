"""Fitting residuals. scikit-learn is imported here alone, and only while fitting."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from profiler.residual import Curves, Forest, GaussianProcess, Residual
from profiler.tile import Floats

FEWEST_ROWS_FOR_TREES = 1000
FEWEST_GROUPS_FOR_TREES = 16
MOST_ROWS_FOR_TREES = 12_000
MOST_POINTS_OF_PROCESS = 600
POINTS_TO_TUNE = 200
STEPS_TO_TUNE = 10
LARGEST_TARGET = 0.6
FEWEST_POINTS_OF_CURVE = 4
CURVE_TOLERANCE = 0.004


def fit_residual(
    features: Floats, log_ratio: Floats, groups: Floats, *, one_length_scale: bool = False
) -> Residual | None:
    """Return boosted trees for a full table, a Gaussian process for a small one, None for next to nothing.

    Parameters
    ----------
    features
        [rows, features].
    log_ratio
        [rows], log(measured / physics); what is beyond +-0.6 counts as +-0.6.
    groups
        [rows]: a table of few shapes teaches trees those shapes only, so it gets a process.
    one_length_scale
        Whether a process counts all features alike, or learns how far each one reaches.
    """
    target = np.clip(log_ratio, -LARGEST_TARGET, LARGEST_TARGET)
    few_groups = len(np.unique(groups)) < FEWEST_GROUPS_FOR_TREES
    if len(target) < 10:
        return None
    if len(target) < FEWEST_ROWS_FOR_TREES or few_groups:
        return _fit_process(*_sample(features, target, MOST_POINTS_OF_PROCESS), one_length_scale)
    return _fit_forest(*_sample(features, target, MOST_ROWS_FOR_TREES))


def _sample(features: Floats, target: Floats, most: int) -> tuple[Floats, Floats]:
    if len(target) <= most:
        return features, target
    rows = np.sort(np.random.default_rng(0).choice(len(target), most, replace=False))
    return features[rows], target[rows]


def _fit_forest(features: Floats, target: Floats) -> Forest:
    from sklearn.ensemble import HistGradientBoostingRegressor

    model = HistGradientBoostingRegressor(
        max_iter=120,
        learning_rate=0.12,
        max_leaf_nodes=31,
        max_depth=8,
        min_samples_leaf=6,
        max_features=0.4,
        early_stopping=False,
        random_state=0,
    )
    return _forest(model.fit(features, target))


def _forest(model: Any) -> Forest:
    """Return the trees of a HistGradientBoostingRegressor, which offers them under a private name only."""
    trees = [predictor.nodes for (predictor,) in model._predictors]
    ends = np.cumsum([len(tree) for tree in trees])
    nodes = np.concatenate(trees)
    leaf = nodes["is_leaf"].astype(np.bool_)
    first = np.repeat(ends - [len(tree) for tree in trees], [len(tree) for tree in trees])
    return Forest(
        feature=np.where(leaf, -1, nodes["feature_idx"]).astype(np.int64),
        threshold=np.where(leaf, np.round(nodes["value"], 5), _rounded_up(nodes["num_threshold"])),
        right=np.where(leaf, 0, first + nodes["right"]).astype(np.int64),
        roots=np.asarray([0, *ends[:-1]], dtype=np.int64),
        base=round(float(np.ravel(model._baseline_prediction)[0]), 6),
    )


def _rounded_up(thresholds: Floats) -> Floats:
    """Return six digits of each: a row of the table may lie on a threshold itself, and has to stay under it."""
    step = 10.0 ** (np.floor(np.log10(np.maximum(np.abs(thresholds), 1e-9))) - 5)
    return np.asarray([float(f"{each:.6g}") for each in np.ceil(thresholds / step) * step])


def _fit_process(features: Floats, target: Floats, one_length_scale: bool) -> GaussianProcess:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

    spread = np.maximum(features.std(axis=0), 1e-3)
    shape = Matern(np.ones(1 if one_length_scale else features.shape[1]), (0.1, 1e3), nu=1.5)
    kernel = ConstantKernel(0.04, (1e-4, 1.0)) * shape + WhiteKernel(0.003, (1e-5, 0.1))
    subset = np.random.default_rng(1).permutation(len(target))[:POINTS_TO_TUNE]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        tuned = GaussianProcessRegressor(kernel, alpha=1e-9, random_state=0, optimizer=_tune)
        tuned.fit(features[subset] / spread, target[subset])
        model = GaussianProcessRegressor(tuned.kernel_, alpha=1e-9, optimizer=None)
        model.fit(features / spread, target)
    variance = float(model.kernel_.k1.k1.constant_value)
    scales = np.asarray(model.kernel_.k1.k2.length_scale) * spread
    return GaussianProcess(points=features, weights=np.ravel(model.alpha_) * variance, length_scales=scales)


def _tune(objective: Callable[[Floats], Any], start: Floats, bounds: Floats) -> tuple[Floats, float]:
    """Return the best hyperparameters within a bounded number of steps, as scikit-learn asks for them."""
    from scipy.optimize import minimize

    options = {"maxiter": STEPS_TO_TUNE}
    best = minimize(objective, start, method="L-BFGS-B", jac=True, bounds=bounds, options=options)
    return np.asarray(best.x), float(best.fun)


def fit_curves(groups: Floats, axis: Floats, log_ratio: Floats) -> Curves:
    """Return one curve for each group of at least four different points on the axis."""
    points: dict[float, Floats] = {}
    for group in np.unique(groups):
        rows = groups == group
        where, index = np.unique(axis[rows], return_inverse=True)
        if len(where) >= FEWEST_POINTS_OF_CURVE:
            ratio = np.bincount(index, log_ratio[rows]) / np.bincount(index)
            kept = _corners(where, ratio) if len(where) > 100 else np.ones(len(where), dtype=np.bool_)
            points[float(group)] = np.stack([where[kept], ratio[kept]])
    return Curves(points)


def _corners(x: Floats, y: Floats) -> npt.NDArray[np.bool_]:
    """Return the fewest points whose polyline stays within the tolerance (Ramer-Douglas-Peucker)."""
    kept = np.zeros(len(x), dtype=np.bool_)
    kept[[0, -1]] = True
    stack = [(0, len(x) - 1)]
    while stack:
        first, last = stack.pop()
        inside = np.arange(first + 1, last)
        if len(inside):
            ends = np.interp(x[inside], x[[first, last]], y[[first, last]])
            worst = int(np.argmax(np.abs(y[inside] - ends)))
            if abs(y[inside[worst]] - ends[worst]) > CURVE_TOLERANCE:
                kept[inside[worst]] = True
                stack += [(first, int(inside[worst])), (int(inside[worst]), last)]
    return kept
