"""Residuals: numpy must say what scikit-learn said, also after a trip through JSON."""

from __future__ import annotations

import json

import numpy as np
import pytest

from profiler.learning import fit_curves, fit_residual
from profiler.residual import Curves, Forest, GaussianProcess, residual_from_json
from profiler.tile import Floats


def _table(rows: int, groups: int) -> tuple[Floats, Floats, Floats]:
    draws = np.random.default_rng(3)
    features = draws.uniform(0, 10, (rows, 3))
    target = 0.1 * np.sin(features[:, 0]) + 0.05 * (features[:, 1] > 5)
    return features, target, draws.integers(0, groups, rows).astype(float)


def test_trees_for_a_full_table() -> None:
    features, target, groups = _table(2000, 50)
    residual = fit_residual(features, target, groups)
    assert isinstance(residual, Forest)
    assert np.abs(residual.evaluate(features) - target).mean() < 0.01


def test_a_process_for_a_small_table() -> None:
    features, target, groups = _table(200, 50)
    residual = fit_residual(features, target, groups)
    assert isinstance(residual, GaussianProcess)
    assert np.abs(residual.evaluate(features) - target).mean() < 0.02
    far = np.full((1, 3), 1e6)
    assert residual.evaluate(far) == pytest.approx(0.0, abs=1e-9)


def test_a_process_may_count_all_features_alike() -> None:
    features, target, groups = _table(200, 50)
    alike = fit_residual(features, target, groups, one_length_scale=True)
    each = fit_residual(features, target, groups)
    assert isinstance(alike, GaussianProcess)
    assert isinstance(each, GaussianProcess)
    in_spreads = alike.length_scales / features.std(axis=0)
    assert in_spreads == pytest.approx(in_spreads[0])
    assert np.ptp(each.length_scales / features.std(axis=0)) > 0.1
    assert np.abs(alike.evaluate(features) - target).mean() < 0.03


def test_nothing_for_next_to_nothing() -> None:
    features, target, groups = _table(9, 3)
    assert fit_residual(features, target, groups) is None


def test_trees_as_scikit_learn_evaluates_them() -> None:
    from sklearn.ensemble import HistGradientBoostingRegressor

    from profiler.learning import _forest

    features, target, _ = _table(1500, 50)
    model = HistGradientBoostingRegressor(max_iter=30, max_leaf_nodes=9, random_state=0).fit(features, target)
    forest = _forest(model)
    unseen, _, _ = _table(300, 50)
    assert forest.evaluate(unseen) == pytest.approx(model.predict(unseen), abs=2e-4)


def test_a_process_as_scikit_learn_evaluates_it() -> None:
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import Matern

    features, target, _ = _table(100, 50)
    scales = np.asarray([1.0, 2.0, 5.0])
    model = GaussianProcessRegressor(Matern(scales, nu=1.5), alpha=1e-3, optimizer=None).fit(features, target)
    ours = GaussianProcess(points=features, weights=np.ravel(model.alpha_), length_scales=scales)
    unseen, _, _ = _table(50, 50)
    assert ours.evaluate(unseen) == pytest.approx(model.predict(unseen), abs=1e-6)


@pytest.mark.parametrize("rows", [200, 2000])
def test_json_keeps_a_residual(rows: int) -> None:
    features, target, groups = _table(rows, 50)
    residual = fit_residual(features, target, groups)
    assert residual is not None
    again = residual_from_json(json.loads(json.dumps(residual.to_json())))
    assert again.evaluate(features) == pytest.approx(residual.evaluate(features), abs=1e-3)


def test_curves_interpolate_and_hold_their_ends() -> None:
    axis = np.asarray([1.0, 2.0, 4.0, 8.0])
    curves = fit_curves(np.full(4, 7.0), axis, np.asarray([0.0, 0.1, 0.3, 0.1]))
    found = curves.evaluate(np.full(4, 7.0), np.asarray([0.5, 3.0, 6.0, 100.0]))
    assert found == pytest.approx([0.0, 0.2, 0.2, 0.1])
    assert curves.evaluate(np.full(1, 8.0), np.asarray([3.0])) == pytest.approx([0.0])
    again = Curves.from_json(json.loads(json.dumps(curves.to_json())))
    assert again.evaluate(np.full(1, 7.0), np.asarray([3.0])) == pytest.approx([0.2])


def test_a_long_curve_keeps_its_corners_only() -> None:
    axis = np.arange(1.0, 2049.0)
    ratio = np.where(axis <= 256, 0.0, 0.25)
    curves = fit_curves(np.zeros(2048), axis, ratio)
    assert curves.points[0.0].shape[1] == 4
    assert curves.evaluate(np.zeros(2048), axis) == pytest.approx(ratio)
