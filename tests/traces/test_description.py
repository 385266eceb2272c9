"""The numbers that describe a workload."""

from __future__ import annotations

import json

import numpy as np
import pytest

from traces.description import describe, prefix_sharing
from traces.source import open_workload
from traces.workload import HashIds, Workload


def workload(arrival_s, prompt, output=None, **more):
    output = prompt if output is None else output
    return Workload(
        name="w",
        arrival_s=np.array(arrival_s, dtype=np.float64),
        prompt_tokens=np.array(prompt),
        output_tokens=np.array(output),
        **more,
    )


def test_what_is_said_of_a_small_workload():
    facts = describe(workload([0, 1, 3, 4], [10, 20, 30, 40], [1, 2, 3, 8]))
    assert facts["requests"] == 4
    assert (facts["span_s"], facts["rate_per_s"]) == (4.0, 0.75)
    assert facts["prompt_tokens"] == {
        "mean": 25.0, "p50": 25.0, "p90": 37.0, "p95": 38.5, "p99": pytest.approx(39.7), "max": 40, "sum": 100
    }  # fmt: skip
    assert facts["total_tokens"]["sum"] == 114
    assert facts["prompt_to_output"]["mean"] == pytest.approx((10 + 10 + 10 + 5) / 4)
    assert facts["prefix_sharing"] is None


@pytest.mark.parametrize(
    "one",
    [
        workload([5.0], [3]),
        workload([1, 1], [3, 4]),
        workload([0, 0], [3, 4], timed=False),
        workload([0, 1, 2, 3], [1, 1, 1, 1]),
    ],
)
def test_a_description_is_strict_json(one):
    assert json.loads(json.dumps(describe(one), allow_nan=False))["requests"] == len(one)


def test_burstiness_is_the_shape_that_made_the_gaps():
    facts = describe(open_workload("chat", num_prompts=20_000, request_rate=2.0, burstiness=0.25))
    assert facts["gap_cv"] == pytest.approx(2.0, rel=0.1)
    assert facts["burstiness"] == pytest.approx(0.25, rel=0.2)


def test_prefix_sharing_counts_the_tokens_sent_before():
    hashes = HashIds(offsets=np.array([0, 2, 4, 5]), values=np.array([1, 2, 1, 3, 1]), block_size=16)
    one = workload([0, 1, 2], [32, 20, 10], hash_ids=hashes)
    assert prefix_sharing(one) == pytest.approx((16 + 10) / 62)
