"""The capacity experiments of Sarathi-Serve: the set-up as published, and what is made of capacities."""

from dataclasses import replace

import pytest

from profiler.cost_model import load_cost_model
from simulator.capacity.capacity import together
from simulator.capacity.seed_capacity import SeedCapacity
from simulator.capacity.service import Service
from simulator.paper.experiment import SAME_CAPACITY
from simulator.paper.serving.capacity import EXPERIMENTS, FALCON, LLAMA, MISTRAL, YI, capacity_table
from simulator.paper.serving.capacity_figure import capacity_panel
from simulator.paper.serving.claim import Claim, judged
from simulator.paper.serving.grid import Cell, gain
from simulator.paper.serving.published_times import base_of_decodes, base_of_table, base_of_target, decode_s
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
    YI_34B,
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
    (finding,), changes = judged([claim], found, {"one thing": grid(0.5, 1.0, 3.0)}, "Why.")
    assert finding.ours == pytest.approx(2.5)
    assert (finding.limit, finding.reason, finding.missed) == (SAME_CAPACITY, "", False)
    assert [(each.finding, each.ours) for each in changes] == [(claim.name, pytest.approx(3.0))]


def test_a_deviation_is_told_by_its_changes():
    claim = Claim(dataset=CHAT, target=STRICT, over=VLLM, published=4.0, source="abstract")
    (finding,), _ = judged([claim], grid(0.5, 1.0, 2.0), {"half": grid(1, 1, 8**0.5), "away": grid(1, 1, 1)}, "Why.")
    assert finding.missed
    assert "half: 2.83x, 50 % of the gap" in finding.reason
    assert "away: 1.00x, the gap 100 % wider" in finding.reason
    assert finding.reason.endswith("Why.")


def test_a_system_that_meets_no_target_has_no_ratio():
    claim = Claim(dataset=CHAT, target=STRICT, over=ORCA, published=2.6, source="abstract")
    (finding,), _ = judged([claim], grid(0.0, 1.0, 2.0), {}, "")
    assert finding.missed


def test_the_figure_says_units_and_what_was_published():
    panel = capacity_panel("x", YI.setup, grid(0.5, 1.0, 2.5), YI.claims)
    assert "requests/s" in panel.figure.layout.yaxis.title.text
    texts = [each.text for each in panel.figure.layout.annotations]
    assert sum("published: 4x Orca, 3.7x vLLM" in text for text in texts) == 1
    assert len(panel.figure.data) == len(SYSTEMS) * len(DATASETS)
    assert "200 ms" in panel.caption
    assert len(capacity_table(grid(0.5, 1.0, 2.5)).rows) == len(SYSTEMS) * len(DATASETS) * len(TARGETS)


def test_engines_cost_what_was_published(tmp_path):
    placed = YI_34B.deployment
    small = load_cost_model(placed, profile=base_of_decodes(placed, tmp_path)).describe()["overhead_s"]
    table = load_cost_model(placed, profile=base_of_table(placed, tmp_path)).describe()["overhead_s"]
    assert 0.01 < small < table < 0.05
    llama = LLAMA.setup.deployment
    slowed = load_cost_model(llama, profile=base_of_target(llama, tmp_path, 0.2))
    assert decode_s(slowed) == pytest.approx(0.2, rel=1e-3)


def test_few_requests_end_to_end_twice_the_same(tmp_path):
    short = replace(MISTRAL, variants={})
    one, two = (carry_out(short.plan(tmp_path, requests=96)) for _ in range(2))
    assert [each.ours for each in one.findings] == [each.ours for each in two.findings]
    assert one.panels[0].figure.to_json() == two.panels[0].figure.to_json()
    assert one.tables == two.tables
    assert "A100" in one.stands_on[0]


def test_names_are_unique():
    assert len({each.name for each in EXPERIMENTS}) == len(ALL)
