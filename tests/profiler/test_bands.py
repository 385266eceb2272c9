"""Bands hold what they promise, at every predicted time, and survive JSON."""

from __future__ import annotations

import json

import numpy as np
import pytest

from profiler.bands import COVERAGES, FEWEST_COUNTED, Bands
from profiler.tile import Floats


def _rows(count: int, seed: int) -> tuple[Floats, Floats]:
    """Rows whose error grows tenfold from the shortest to the longest."""
    draws = np.random.default_rng(seed)
    predicted = 10 ** draws.uniform(-6, -2, count)
    spread = 0.01 * 10 ** ((np.log10(predicted) + 6) / 4)
    return predicted * np.exp(draws.normal(0, spread)), predicted


@pytest.mark.parametrize("count", [400, 3000])
def test_each_bin_holds_its_share_of_new_rows(count: int) -> None:
    bands = Bands.of(*_rows(count, 0))
    measured, predicted = _rows(20_000, 1)
    half = np.asarray([bands.width(0.9, seconds) for seconds in predicted])
    inside = np.abs(np.log(measured / predicted)) <= half
    for part in np.array_split(np.argsort(predicted), 5):
        assert 0.82 < inside[part].mean() < 0.98


def test_longer_times_get_the_wider_band() -> None:
    bands = Bands.of(*_rows(3000, 0))
    assert bands.width(0.9, 1e-6) < bands.width(0.9, 1e-4) < bands.width(0.9, 1e-2)
    assert bands.width(0.5, 1e-4) < bands.width(0.7, 1e-4) < bands.width(0.99, 1e-4)


def test_the_rank_is_that_of_a_finite_sample() -> None:
    """Of 9 rows a band of 90 % takes the 9th, of 19 the 18th: one more row than the share alone."""
    for count, rank in ((9, 9), (19, 18)):
        miss = np.arange(1, count + 1) / 100
        assert Bands.of(np.exp(miss), np.ones(count)).width(0.9, 1.0) == pytest.approx(rank / 100)


@pytest.mark.parametrize("count", [1, 8, FEWEST_COUNTED - 1, 150, 777])
def test_json_keeps_them(count: int) -> None:
    bands = Bands.of(*_rows(count, 2))
    again = Bands.from_json(json.loads(json.dumps(bands.to_json())))
    assert again == bands
    assert all(len(bands.widths[share]) == len(bands.edges_s) + 1 for share in COVERAGES)


def test_one_width_for_all_times_as_earlier_files_have_it() -> None:
    bands = Bands.from_json({"0.5": 0.1, "0.9": 0.3})
    assert bands.width(0.7, 1e-6) == bands.width(0.7, 1.0) == pytest.approx(0.2)
