"""Surfaces: what was profiled comes back, between its points lines, beyond them the edge, elsewhere nothing."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from profiler.decode_time import FEWEST_ROWS, DecodeAttention
from profiler.deployment import Deployment
from profiler.device import load_device
from profiler.fit import every_other, fit_rows
from profiler.op import DECODE_ATTENTION, ELEMENTWISE
from profiler.surface import FEWEST_POINTS, MOST_LAYOUTS, Surfaces, fit_surfaces
from profiler.tile import Floats
from profiler.transfer import load_fitted

CONTEXTS = 2.0 ** np.arange(4, 15)
DECODES = 2.0 ** np.arange(8)


def plane() -> Floats:
    """Doublings of decodes and contexts, [88, 2]."""
    rows = np.meshgrid(np.log2(DECODES), np.log2(CONTEXTS), indexing="ij")
    return np.stack([each.ravel() for each in rows], axis=1)


def test_linear_between_the_points_and_flat_beyond() -> None:
    where = plane()
    surfaces = fit_surfaces(np.full(len(where), 7.0), where, 0.01 * where[:, 0] - 0.02 * where[:, 1])
    assert surfaces is not None
    asked = np.asarray([[2.5, 9.25], [0.0, 4.0], [20.0, 4.0], [3.0, 2.0]])
    found = surfaces.evaluate(np.full(4, 7.0), asked)
    assert found == pytest.approx([0.025 - 0.185, -0.08, 0.07 - 0.08, 0.03 - 0.08])
    assert surfaces.evaluate(np.full(4, 8.0), asked) == pytest.approx(np.zeros(4))


def test_through_json_it_moves_by_roundings_alone() -> None:
    where = plane()
    surfaces = fit_surfaces(np.full(len(where), 7.0), where, np.sin(where).sum(axis=1))
    assert surfaces is not None
    again = Surfaces.from_json(json.loads(json.dumps(surfaces.to_json())))
    assert again.evaluate(np.full(len(where), 7.0), where) == pytest.approx(np.sin(where).sum(axis=1), abs=0.02)


def test_no_surface_from_few_points_one_place_or_many_layouts() -> None:
    where = plane()
    assert fit_surfaces(np.zeros(FEWEST_POINTS - 1), where[: FEWEST_POINTS - 1], where[: FEWEST_POINTS - 1, 0]) is None
    assert fit_surfaces(np.zeros(len(where)), np.ones_like(where), where[:, 0]) is None
    many = MOST_LAYOUTS + 1
    groups = np.repeat(np.arange(many, dtype=float), len(where))
    assert fit_surfaces(groups, np.tile(where, (many, 1)), np.tile(where[:, 0], many)) is None


def test_points_on_a_line_count_as_the_nearest() -> None:
    where = np.stack([np.arange(30.0), np.arange(30.0)], axis=1)
    surfaces = fit_surfaces(np.zeros(30), where, where[:, 0])
    assert surfaces is not None
    assert surfaces.evaluate(np.zeros(1), np.asarray([[4.2, 4.0]])) == pytest.approx([4.0], abs=0.1)
    assert surfaces.evaluate(np.zeros(1), np.asarray([[4.0, 4.0]])) == pytest.approx([4.0])


def measured() -> tuple[dict[str, Floats], Floats]:
    """Decodes of one layout on an A100 that wave by 10 % around the shipped physics."""
    op, device, where = load_fitted(load_device("a100-sxm")).ops["decode_attention"], load_device("a100-sxm"), plane()
    columns = {"heads": 32.0, "kv_heads": 8.0, "head_dim": 128.0, "element_bytes": 2.0}
    shape = {name: np.full(len(where), value) for name, value in columns.items()}
    shape |= {"sequences": 2 ** where[:, 0], "past_tokens": 2 ** where[:, 1] - 1}
    return shape, op.physics_only().predict(shape, device) * np.exp(0.1 * np.sin(where[:, 0] + where[:, 1]))


def test_a_profiled_layout_is_predicted_as_it_was_measured() -> None:
    device = load_device("a100-sxm")
    shape, time_s = measured()
    fitted = fit_rows(DECODE_ATTENTION, shape, time_s, device, with_residual=False)
    assert fitted.predict(shape, device) == pytest.approx(time_s, rel=0.01)
    bare = fitted.physics_only().predict(shape, device)
    assert np.abs(bare / time_s - 1).max() > 0.03


def test_between_profiled_decodes_time_rises_along_a_line() -> None:
    device = load_device("a100-sxm")
    shape, time_s = measured()
    fitted = fit_rows(DECODE_ATTENTION, shape, time_s, device, with_residual=False)
    deployment = Deployment(model="llama-3.1-8b", device="a100-sxm")
    profiled = DecodeAttention(deployment, fitted, 128)
    at = [profiled.time(decodes, 1024.0 * decodes, 1024.0) for decodes in range(32, 65)]
    per_token = np.asarray(at) / np.arange(32, 65)
    low, high = sorted((per_token[0], per_token[-1]))
    assert (per_token > 0.97 * low).all()
    assert (per_token < 1.03 * high).all()
    few = {name: values[shape["sequences"] < 2 ** (FEWEST_ROWS - 1)] for name, values in shape.items()}
    sparse = fit_rows(DECODE_ATTENTION, few, time_s[shape["sequences"] < 2 ** (FEWEST_ROWS - 1)], device)
    assert len(DecodeAttention(deployment, sparse, 128)._rows(128)) > FEWEST_ROWS


def test_another_device_gets_no_surface() -> None:
    device = load_device("a100-sxm")
    fitted = fit_rows(DECODE_ATTENTION, *measured(), device)
    assert fitted.surfaces is not None
    assert fitted.physics_only().surfaces is None
    layout = {"heads": np.full(1, 32.0), "kv_heads": np.full(1, 8.0), "head_dim": np.full(1, 128.0)}
    assert fitted.profiled(layout) == pytest.approx(plane())
    assert fitted.profiled(layout | {"heads": np.full(1, 40.0)}) is None
    assert replace(fitted, surfaces=None).profiled(layout) is None


def test_an_elementwise_kind_follows_its_own_curve() -> None:
    """A cache that ends at 32 MB bends the time of one kind; the other has none."""
    device = load_device("rtx-4090")
    size_bytes = np.tile(2.0 ** np.arange(10, 28), 2)
    kind = np.repeat(["act", "input_layernorm"], 18)
    cached = np.where((kind == "act") & (size_bytes < 2**25), 0.3, 1.0)
    time_s = 2e-6 + cached * size_bytes / device.memory_bandwidth_bytes_per_s
    shape = {"kind": kind, "size_bytes": size_bytes}
    fitted = fit_rows(ELEMENTWISE, shape, time_s, device)
    assert fitted.predict(shape, device) == pytest.approx(time_s, rel=0.01)
    out = every_other(ELEMENTWISE, shape)
    assert out.sum() == 18
    assert not out[0]
    assert not out[18]
