"""The search against a sweep of all rates."""

from dataclasses import replace
from math import exp, log, sqrt

import numpy as np
import pytest

from policies.catalog import choose
from simulator.capacity.capacity import find_capacity
from simulator.capacity.slo import parse_slo
from simulator.cluster_settings import ClusterSettings, GroupSettings
from simulator.trials.candidate import Candidate
from simulator.trials.plan import carry_out
from simulator.trials.trial import Trial
from traces.demand import Demand
from traces.goodput import parse_goodput

STEP = 1.02
CHAT = Demand(source="chat", num_prompts=160, length_scale=0.1)
SUMMARIES = Demand(source="summarization", num_prompts=140, length_scale=0.1)
HERE = Candidate(choice=choose("sarathi-serve"), model="mistral-7b", device="a100-sxm", max_model_len=SUMMARIES.longest)
TARGETS = parse_goodput("ttft:400 tpot:14")
TWO = ClusterSettings(groups=(GroupSettings(count=2),))


def policy(name, **settings):
    return replace(HERE, choice=choose(name, **settings))


def swept(candidate, demand, slo, near):
    """Return the rate, of steps of 2 %, between the last that holds and the first that does not, for a seed."""
    limit = near.service.limit_per_s or float("inf")

    def holds(rate_per_s):
        trial = Trial(candidate=candidate, demand=demand, rate_per_s=rate_per_s, seed=near.seed, goodput=slo.goodput)
        return rate_per_s <= limit and slo.margin(trial.run()) <= 0

    rate = near.rate_per_s / STEP**3
    while not holds(rate):
        rate /= STEP**3
    while holds(rate * STEP):
        rate *= STEP
    return rate * sqrt(STEP)


@pytest.mark.parametrize(
    ("candidate", "demand", "slo", "stability"),
    [
        (policy("sarathi-serve", max_num_seqs=16), CHAT, parse_slo("tbt:30 delay:1000"), True),
        (policy("vllm", max_num_seqs=24), CHAT, parse_slo("tbt:30"), True),
        (policy("orca", max_num_seqs=16), SUMMARIES, parse_slo("p90-tbt:20 p90-ttft:2000"), False),
        (policy("faster-transformer", max_num_seqs=16), CHAT, parse_slo("p90-e2el:6000"), True),
        (policy("vllm-v1", max_num_seqs=16), CHAT, parse_slo(goodput=TARGETS, share=0.9), True),
        (
            replace(policy("sarathi-serve", max_num_batched_tokens=128, max_num_seqs=16), cluster=TWO),
            replace(SUMMARIES, burstiness=0.5),
            parse_slo("tbt:40"),
            True,
        ),
    ],
    ids=["sarathi-serve", "vllm", "orca, papers", "faster-transformer", "goodput", "2 replicas, bursts"],
)  # fmt: skip
def test_the_capacity_is_that_of_a_sweep(candidate, demand, slo, stability):
    found = carry_out(find_capacity(candidate, demand, slo, stability=stability))
    assert found.trials <= 15
    assert not found.unmet
    assert not found.unlimited
    rates = [swept(candidate, demand, slo, seed) for seed in found.seeds]
    for seed, rate in zip(found.seeds, rates, strict=True):
        assert seed.low_per_s / STEP <= rate <= seed.high_per_s * STEP
    assert found.low_per_s <= exp(np.mean([log(rate) for rate in rates])) <= found.high_per_s
