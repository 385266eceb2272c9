"""The figures of runs with several pipeline stages."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from simulator.figures import panels
from simulator.pipeline_figures import pipeline_panels, stage_time_panel
from simulator.pipeline_stretch import MOST_BATCHES, usual_stretch
from traces.bubbles import batch_bubbles
from traces.metrics import measure
from traces.utilisation import stage_bubbles

NAMES = ("orca", "sarathi-serve")
STAGES = 3


@pytest.fixture(scope="module")
def runs(played):
    return played(*NAMES, stages=STAGES)


@pytest.fixture(scope="module")
def figures(runs):
    measured = {name: measure(run) for name, run in runs.items()}
    return {panel.name: panel for panel in pipeline_panels(runs, measured)}


def test_they_are_shown_only_where_there_are_stages(played, runs):
    both = {"one": played("vllm")["vllm"], **runs}
    measured = {name: measure(run) for name, run in both.items()}
    names = {"pipeline", "stage-time", "request-bubbles"}
    assert names <= {panel.name for panel in panels({name: (run, measured[name]) for name, run in both.items()})}
    assert pipeline_panels({"one": both["one"]}, measured) == []
    drawn = pipeline_panels(both, measured)
    assert not any(trace.name == "one" or "one" in str(trace.y) for panel in drawn for trace in panel.figure.data)


def test_a_stretch_has_the_usual_share_of_bubbles(runs):
    for run in runs.values():
        stretch = usual_stretch(run, 0)
        assert 0 < len(stretch.rows) <= MOST_BATCHES
        columns = run.iterations
        inside = (columns.start_s < stretch.start_s + stretch.length_s) & (columns.end_s > stretch.start_s)
        np.testing.assert_array_equal(stretch.rows, np.flatnonzero(inside))
        np.testing.assert_array_equal(stretch.bubble_s, batch_bubbles(run, 0)[stretch.rows])
        ends = columns.stage_start_s + columns.stage_time_s
        until_s = stretch.start_s + stretch.length_s
        busy_s = np.maximum(np.minimum(ends, until_s) - np.maximum(columns.stage_start_s, stretch.start_s), 0).sum()
        stages = stage_bubbles(run)
        usual = sum(each.busy_s for each in stages) / sum(each.busy_s + each.idle_s for each in stages)
        assert busy_s / (stretch.length_s * STAGES) == pytest.approx(usual, abs=0.25)


def test_every_batch_of_the_stretch_has_a_bar_on_every_stage(runs, figures):
    bars = figures["pipeline"].figure.data
    for axis, run in zip(("y", "y2"), runs.values(), strict=True):
        mine = [(base, stage, time) for bar in bars if bar.yaxis == axis for base, stage, time in _bars(bar)]
        rows = usual_stretch(run, 0).rows
        assert len(mine) == STAGES * len(rows)
        starts, times = run.iterations.stage_start_s[rows] - run.start_s, run.iterations.stage_time_s[rows]
        expected = [
            (start, f"stage {stage}", time)
            for stage in range(STAGES)
            for start, time in zip(starts[:, stage].tolist(), times[:, stage].tolist(), strict=True)
        ]
        assert sorted(mine) == sorted(expected)


def _bars(bar):
    return zip(list(bar.base), list(bar.y), list(bar.x), strict=True)


def test_a_bar_says_what_came_before_it(figures):
    texts = {text for bar in figures["pipeline"].figure.data for text in np.asarray(bar.customdata)[:, 2]}
    assert any("handed over after" in text for text in texts)
    assert any("handed over and its turn after" in text for text in texts)
    assert any("bubble before it" in text for text in texts)


def test_the_times_of_a_stage_add_up(runs, figures):
    bars = {bar.name: np.asarray(bar.x) for bar in figures["stage-time"].figure.data}
    np.testing.assert_allclose(bars["busy"] + bars["bubble"] + bars["idle"], 100.0)
    makespan_s = measure(runs["orca"]).makespan_s
    expected = [100 * each.in_flight_s / makespan_s for each in stage_bubbles(runs["orca"])]
    np.testing.assert_allclose(bars["bubble"][:STAGES], expected)


def test_replicas_with_one_stage_are_no_part_of_the_times_of_stages(runs):
    measured = measure(runs["orca"])
    alone = replace(measured.bubbles[0], replica=1, busy_s=measured.makespan_s)
    both = replace(measured, bubbles=(*measured.bubbles, alone))
    bars = [{bar.name: list(bar.x) for bar in stage_time_panel({"a": each}).figure.data} for each in (measured, both)]
    assert bars[0] == bars[1]


def test_the_curve_of_bubble_times_goes_through_the_median(runs, figures):
    curves = {curve.name: curve for curve in figures["request-bubbles"].figure.data}
    for name, run in runs.items():
        median_s = float(np.median(run.requests.bubble_s))
        assert curves[name].x[100] == pytest.approx(median_s, rel=1e-6)
    assert "median: orca" in figures["request-bubbles"].caption


def test_batches_without_length_have_a_stretch_too(runs):
    """As an engine's clock may give them; hundreds at the same moment."""
    run = runs["orca"]
    columns = run.iterations.in_memory()
    still = replace(columns, stage_start_s=np.zeros_like(columns.stage_start_s), stage_time_s=0 * columns.stage_time_s)
    stretch = usual_stretch(replace(run, iterations=still), 0)
    assert len(stretch.rows) <= MOST_BATCHES
