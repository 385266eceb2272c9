"""Every experiment runs, draws figures that say their units, and finds what its page says."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from simulator.paper.experiment import Experiment, Findings
from simulator.paper.sarathi import (
    chunk_overhead,
    orca_bounds,
    pd_ratio,
    speedup,
    table_2,
    table_4,
    tile_quantisation,
    today,
    token_cost,
)
from simulator.paper.sarathi.engine import Engine
from simulator.trials.plan import carry_out

QUICK = (table_2, tile_quantisation, token_cost, speedup, table_4, chunk_overhead, orca_bounds)
MISSED = {
    "table-2": {"decode token beside a prefill"},
    "tile-quantisation": {"prefill of 128 tokens"},
    "token-cost": {f"decode over prefill, batch {batch}" for batch in (1, 2, 18)},
    "decode-speedup": {"lowest decode speedup"},
    "table-4": {f"decode speedup, 33B, A100, {length}K" for length in (1, 2, 3)},
    "chunk-overhead": {"prefill in chunks of 64", "prefill in chunks of 128"},
    "orca-bounds": set(),
}


@cache
def found(experiment: Experiment) -> Findings:
    return carry_out(experiment.plan(Path("unused")))


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the sweeps a few points long."""
    monkeypatch.setattr(orca_bounds, "RATIOS", (20.0,))
    monkeypatch.setattr(pd_ratio, "POINTS", 3)
    monkeypatch.setattr(pd_ratio, "NEAR", (0.94, 1.06))
    monkeypatch.setattr(chunk_overhead, "ABOUT", ())
    monkeypatch.setattr(pd_ratio, "LARGEST", {1024: 18})
    monkeypatch.setattr(today, "DEVICES", ("a6000", "h200"))
    monkeypatch.setattr(today, "MODELS", {"llama-13b": ("h200",)})
    monkeypatch.setattr(today, "RATIOS", ())
    monkeypatch.setattr(today, "LONG", 1)


def check(experiment: Experiment, findings: Findings) -> None:
    assert findings.panels
    assert findings.stands_on
    for panel in findings.panels:
        assert panel.name.startswith("sarathi-")
        assert panel.title
        assert len(panel.caption) > 60
        assert "(" in panel.figure.layout.yaxis.title.text, "a y axis without a unit"
        assert panel.figure.data
    for finding in findings.findings:
        assert finding.ours > 0
        told = finding.cause and finding.reason
        assert not finding.missed or told, f"{experiment.name}: {finding.name} misses without a reason"


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("module", QUICK, ids=lambda module: module.EXPERIMENT.name)
def test_it_runs_and_misses_what_it_is_known_to_miss(module: object) -> None:
    experiment: Experiment = module.EXPERIMENT  # type: ignore[attr-defined]
    findings = found(experiment)
    check(experiment, findings)
    assert {finding.name for finding in findings.findings if finding.missed} == MISSED[experiment.name]


def test_it_finds_the_same_again() -> None:
    experiment = token_cost.EXPERIMENT
    once, again = found(experiment), carry_out(experiment.plan(Path("unused")))
    assert (once.findings, once.changes, once.tables) == (again.findings, again.changes, again.tables)
    assert [panel.figure.to_json() for panel in once.panels] == [panel.figure.to_json() for panel in again.panels]


@pytest.mark.usefixtures("short")
def test_the_peaks_lie_where_the_paper_has_them() -> None:
    findings = carry_out(pd_ratio.EXPERIMENT.plan(Path("unused")))
    check(pd_ratio.EXPERIMENT, findings)
    assert not [finding.name for finding in findings.findings if finding.missed]


@pytest.mark.usefixtures("short")
def test_today_runs_and_the_gain_is_still_there() -> None:
    findings = carry_out(today.EXPERIMENT.plan(Path("unused")))
    check(today.EXPERIMENT, findings)
    gains, prompts, largest, policies, _ = findings.tables
    assert [row[0] for row in gains.rows] == ["NVIDIA RTX A6000 48 GB", "NVIDIA H200 SXM 141 GB"]
    assert all(float(cell) > 1 for row in gains.rows for cell in row[1:3])
    assert float(largest.rows[0][-1]) < float(gains.rows[1][4].split()[0]), "larger batches leave less to gain"
    assert [len(row) for row in prompts.rows] == [4, 4]
    assert policies.head[3:] == ("Orca, best case", "SARATHI", "vLLM v1", "Slack")


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize(("device", "eager", "chunk"), [("a100-sxm", True, 256), ("h100", False, 512)])
def test_the_best_chunk_is_the_one_of_the_caption(device: str, eager: bool, chunk: int) -> None:
    assert today.best_chunk(today.sweep(Engine(device=device, eager=eager), today.SEATS)) == chunk
