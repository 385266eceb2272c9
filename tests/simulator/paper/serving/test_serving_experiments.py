"""The small experiments of Sarathi-Serve: what they find, and that every miss has a reason with evidence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from profiler.aggregates import Aggregates
from simulator.paper.experiment import Experiment, Findings
from simulator.paper.serving import ablation, falcon_nodes, hybrid_tbt, yi_chunk_overhead, yi_iterations
from simulator.paper.serving.ablation_table import BOTH, CHUNKED, HYBRID, PUBLISHED, Cell
from simulator.paper.serving.setup import CHAT, FALCON_180B, SUMMARIZATION
from simulator.paper.serving.yi_models import Models, parted_rows
from simulator.trials.plan import carry_out

MIXED = "prefill 1021 + decode 3"
QUICK = {each.name: each for each in (yi_iterations.EXPERIMENT, yi_chunk_overhead.EXPERIMENT, hybrid_tbt.EXPERIMENT)}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Experiment], Findings]:
    known: dict[str, Findings] = {}

    def of(experiment: Experiment) -> Findings:
        if experiment.name not in known:
            known[experiment.name] = carry_out(experiment.plan(tmp_path_factory.mktemp(experiment.name)))
        return known[experiment.name]

    return of


def explained(findings: Findings) -> None:
    """Check that whatever is missed has a reason and evidence, and nothing else has a reason."""
    for finding in findings.findings:
        assert bool(finding.reason) == bool(finding.cause) == finding.missed
        assert not finding.missed or any(change.finding == finding.name for change in findings.changes)
    for panel in findings.panels:
        assert panel.name.startswith("serving-")
        assert len(panel.figure.data) > 0
        assert len(panel.caption) > 40


@pytest.mark.parametrize("name", QUICK)
def test_misses_have_reasons(name: str, found: Callable[[Experiment], Findings]) -> None:
    explained(found(QUICK[name]))


@pytest.mark.parametrize("name", QUICK)
def test_the_same_again(name: str, found: Callable[[Experiment], Findings], tmp_path: Path) -> None:
    again, first = carry_out(QUICK[name].plan(tmp_path)), found(QUICK[name])
    assert replace(again, panels=()) == replace(first, panels=())
    assert [panel.figure.to_json() for panel in again.panels] == [panel.figure.to_json() for panel in first.panels]


def test_what_was_changed_brings_published_iterations_nearer(found: Callable[[Experiment], Findings]) -> None:
    """Not each alone, but the last named, which holds all that table 2 speaks of."""
    findings = found(yi_iterations.EXPERIMENT)
    last = {change.finding: change.ours for change in findings.changes}
    missed = [finding for finding in findings.findings if finding.missed]
    assert len(missed) >= 10
    for finding in missed:
        assert abs(last[finding.name] / finding.published - 1) < abs(finding.deviation)


def test_only_whole_prompts_attend_slowly() -> None:
    models = Models.load()
    prompt, mixed = (next(row for row in parted_rows() if row.label == label) for label in ("prefill 1024", MIXED))
    parts = models.attention.breakdown(prompt.batch)
    assert parts["prefill attention"] == pytest.approx(prompt.attention_s)
    assert list(models.on(mixed).values()) == [models.base]


def test_smaller_chunks_cost_more() -> None:
    prefill = yi_chunk_overhead._in_chunks(Models.load().plain, Models.load().plain)
    for prompt in yi_chunk_overhead.PROMPTS:
        times = [prefill(prompt, chunk) for chunk in (512, 1024, 2048, prompt)]
        assert times == sorted(times, reverse=True)
    assert prefill(1000, 1000) == Models.load().plain.iteration_time(Aggregates.of(1000))


def test_a_chunk_bounds_what_a_prompt_does_not() -> None:
    for case in hybrid_tbt.CASES:
        whole = [hybrid_tbt._ratio(case.costs, 1, length) for length in (1024, 4096)]
        chunk = [hybrid_tbt._ratio(case.costs, 1, length, case.budget) for length in (1024, 4096)]
        assert whole[1] > 3 * whole[0]
        assert chunk[1] < 1.25 * chunk[0]


def test_each_technique_bounds_one_thing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order that table 4 has, on both datasets, and in what it prints."""
    monkeypatch.setattr(ablation, "SEEDS", range(1))
    findings = carry_out(ablation.plan(tmp_path))
    explained(findings)
    ours = {finding.name: finding.ours for finding in findings.findings}
    for values in ({cell: ours[cell.name] for cell in PUBLISHED}, PUBLISHED):
        for dataset in (CHAT, SUMMARIZATION):
            tbt = [values[Cell(dataset, policy, "TBT P99")] for policy in (BOTH, CHUNKED, HYBRID)]
            ttft = [values[Cell(dataset, policy, "TTFT P50")] for policy in (HYBRID, BOTH, CHUNKED)]
            assert tbt == sorted(tbt)
            assert ttft == sorted(ttft)


def test_a_pipeline_serves_more_than_tensor_parallelism_across_nodes(tmp_path: Path) -> None:
    findings = carry_out(falcon_nodes.plan(tmp_path, requests=40, script_requests=8))
    explained(findings)
    ours = {finding.name: finding.ours for finding in findings.findings}
    assert ours[falcon_nodes.CAPACITY] > 1.5
    assert falcon_nodes.TP8.deployment.spans_nodes
    assert FALCON_180B.deployment.gpus == falcon_nodes.TP8.deployment.gpus == 8
