"""Table 4 of Sarathi-Serve, as printed."""

from __future__ import annotations

from typing import NamedTuple

from simulator.paper.serving.setup import CHAT, SHORT, SUMMARIZATION

HYBRID, CHUNKED, BOTH = "hybrid-only", "chunked-only", "sarathi-serve"
POLICIES = {HYBRID: "hybrid batches only", CHUNKED: "chunks only", BOTH: "both"}
TTFT, TBT = "TTFT P50", "TBT P99"
METRICS = {TTFT: "median TTFT", TBT: "P99 TBT"}
"""By their names among the metrics of an outcome."""


class Cell(NamedTuple):
    """Of which dataset, policy and metric a figure of the table is."""

    dataset: str
    policy: str
    metric: str

    @property
    def name(self) -> str:
        """The name of its finding."""
        return f"{SHORT[self.dataset]}, {POLICIES[self.policy]}: {METRICS[self.metric]}"


PUBLISHED = {
    Cell(dataset, policy, metric): value
    for policy, row in {
        HYBRID: (0.53, 0.68, 3.78, 1.38),
        CHUNKED: (1.04, 0.17, 5.38, 0.20),
        BOTH: (0.76, 0.14, 3.90, 0.17),
    }.items()
    for (dataset, metric), value in zip(
        [(dataset, metric) for dataset in (CHAT, SUMMARIZATION) for metric in METRICS], row, strict=True
    )
}
"""Seconds."""
