"""The capacity experiments of Sarathi-Serve: the set-up as published, and what is made of capacities."""

from dataclasses import replace

import pytest

from simulator.capacity.capacity import together
from simulator.capacity.seed_capacity import SeedCapacity
from simulator.capacity.service import Service
from simulator.paper.experiment import SAME_CAPACITY
from simulator.paper.serving.capacity import EXPERIMENTS, FALCON, LLAMA, MISTRAL, YI, capacity_table
from simulator.paper.serving.capacity_figure import capacity_panel
from simulator.paper.serving.claim import Claim
from simulator.paper.serving.grid import Cell, gain
from simulator.paper.serving.setup import (
    CHAT,
    DATASETS,
    KV_UTILISATION,
    ORCA,
    RELAXED,
    SARATHI_SERVE,
    STRICT,
    SYSTEMS,
    TARGETS,
    VLLM,
    demand,
)
from simulator.trials.plan import carry_out

ALL = (MISTRAL, YI, LLAMA, FALCON)


def capacity(rate_per_s):
    service = Service(served_per_s=1.0, limit_per_s=None, stability=False, demand=demand(CHAT), at_once=None, trials=0)
    one = SeedCapacity(
        seed=0,
        rate_per_s=rate_per_s,
        low_per_s=rate_per_s,
        high_per_s=rate_per_s,
        bound_by="P99 TBT",
        unmet=rate_per_s == 0,
        unlimited=False,
        service=service,
        slope=1.0,
        flat=False,
        samples=(),
    )
    return together([one], stability=False)


def grid(orca, vllm, sarathi_serve):
    rates = dict(zip(SYSTEMS, (orca, vllm, sarathi_serve), strict=True))
    return {
        Cell(dataset, target, system): capacity(rate)
        for dataset in DATASETS
        for target in TARGETS
        for system, rate in rates.items()
    }


@pytest.mark.parametrize(
    ("experiment", "ways", "stages", "strict_s", "relaxed_s", "budget", "batch"),
    [
        (MISTRAL, 1, 1, 0.1, 0.5, 2048, 16),
        (YI, 2, 1, 0.2, 1.0, 2048, 16),
        (LLAMA, 4, 2, 1.0, 5.0, 1536, 8),
        (FALCON, 4, 2, 1.0, 5.0, 2048, 8),
    ],
)
def test_the_set_up_is_the_published_one(experiment, ways, stages, strict_s, relaxed_s, budget, batch):
    setup = experiment.setup
    placed = setup.deployment
    assert (placed.tensor_parallel_size, placed.pipeline_parallel_size) == (ways, stages)
    assert placed.gpu_memory_utilization == KV_UTILISATION == 0.85
    for target, limit_s in ((STRICT, strict_s), (RELAXED, relaxed_s)):
        assert {term.name: term.limit_s for term in setup.slo(target).terms} == {
            "P99 TBT": limit_s,
            "median delay": 2.0,
        }
    assert setup.choice(ORCA, CHAT, STRICT).settings.max_num_seqs == batch
    for dataset, longest in zip(DATASETS, (8192, 16384), strict=True):
        vllm = setup.choice(VLLM, dataset, STRICT).settings
        assert (vllm.max_num_seqs, vllm.max_num_batched_tokens) == (128, longest)
        assert setup.candidate(setup.choice(ORCA, dataset, STRICT), dataset).max_model_len == longest
    ours = [setup.choice(SARATHI_SERVE, CHAT, target).settings for target in TARGETS]
    assert [each.max_num_batched_tokens for each in ours] == [512, budget]
    assert demand(CHAT).requests == 2048


def test_a_claim_is_the_ratio_of_two_capacities():
    claim = Claim(dataset=CHAT, target=STRICT, over=VLLM, published=2.6, source="abstract")
    found = grid(0.5, 1.0, 2.5)
    assert gain(found, CHAT, STRICT, ORCA) == pytest.approx(5.0)
    finding, changes = claim.finding(found, "cause", "Why."), claim.changes({"one thing": grid(0.5, 1.0, 3.0)})
    assert finding.ours == pytest.approx(2.5)
    assert (finding.limit, finding.cause, finding.reason, finding.missed) == (SAME_CAPACITY, "", "", False)
    assert [(each.finding, each.ours) for each in changes] == [(claim.name, pytest.approx(3.0))]


def test_a_deviation_has_a_reason_before_it_is_a_miss():
    claim = Claim(dataset=CHAT, target=STRICT, over=VLLM, published=4.0, source="abstract")
    told = [claim.finding(grid(0.5, 1.0, gained), "cause", "Why.") for gained in (2.0, 3.2, 3.8)]
    assert [(each.missed, each.cause, each.reason) for each in told] == [
        (True, "cause", "Why."),
        (False, "cause", "Why."),
        (False, "", ""),
    ]


def test_a_system_that_meets_no_target_has_no_ratio():
    claim = Claim(dataset=CHAT, target=STRICT, over=ORCA, published=2.6, source="abstract")
    assert claim.finding(grid(0.0, 1.0, 2.0), "", "").missed


def test_the_figure_says_units_and_what_was_published():
    panel = capacity_panel("x", YI.setup, grid(0.5, 1.0, 2.5), YI.claims)
    assert "requests/s" in panel.figure.layout.yaxis.title.text
    texts = [each.text for each in panel.figure.layout.annotations]
    assert sum("5.00x Orca, 2.50x vLLM" in text and "published 4x, 3.7x" in text for text in texts) == 1
    assert len(panel.figure.data) == len(SYSTEMS) * len(DATASETS)
    assert "200 ms" in panel.caption
    assert len(capacity_table(grid(0.5, 1.0, 2.5)).rows) == len(SYSTEMS) * len(DATASETS) * len(TARGETS)


def test_few_requests_end_to_end_twice_the_same(tmp_path):
    short = replace(MISTRAL, variants=lambda _: {"another seed": {"seed": 1}})
    one, two = (carry_out(short.plan(tmp_path, requests=32)) for _ in range(2))
    assert [each.ours for each in one.findings] == [each.ours for each in two.findings]
    assert one.panels[0].figure.to_json() == two.panels[0].figure.to_json()
    assert one.tables == two.tables
    assert [table.title for table in one.tables] == ["Capacities", "Capacities with one thing changed"]
    assert {row[0] for row in one.tables[1].rows} == {"another seed"}
    assert [change.what for change in one.changes] == ["another seed"] * len(MISTRAL.claims)
    assert "A100" in one.stands_on[0]


def test_names_are_unique():
    assert len({each.name for each in EXPERIMENTS}) == len(ALL)
