"""The figures of the report, in the order in which it shows them."""

from __future__ import annotations

from collections.abc import Mapping

from simulator.figure_style import Panel
from simulator.latency_figures import latency_panel, tbt_panel
from simulator.load_figures import composition_panel, queue_panel, time_share_panel
from simulator.pipeline_figures import pipeline_panels
from simulator.replica_figure import replica_panels
from simulator.timeline_figure import timeline_panel
from traces.metrics import Metrics
from traces.run_record import RunRecord


def panels(runs: Mapping[str, tuple[RunRecord, Metrics]]) -> list[Panel]:
    """Return the figures for runs of the same workload."""
    records = {label: run for label, (run, _) in runs.items()}
    metrics = {label: measured for label, (_, measured) in runs.items()}
    return [
        latency_panel(records),
        tbt_panel(records),
        timeline_panel(records),
        *pipeline_panels(records, metrics),
        time_share_panel(metrics),
        composition_panel(records),
        queue_panel(records),
        *replica_panels(records),
    ]
