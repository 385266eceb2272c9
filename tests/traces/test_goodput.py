from __future__ import annotations

from math import nan

import numpy as np
import pytest

from traces.errors import InputError
from traces.goodput import GoodputRule, parse_goodput


@pytest.mark.parametrize(
    "targets", ["ttft:500 tpot:50", ["ttft:500", "tpot:50"], ["ttft:500 tpot:50"], " tpot:5e1  ttft:500.0 "]
)
def test_targets_are_read_as_vllm_spells_them(targets):
    assert parse_goodput(targets) == GoodputRule(ttft_s=0.5, tpot_s=0.05)


def test_end_to_end_latency_is_e2el():
    assert parse_goodput("e2el:12000") == GoodputRule(end_to_end_s=12.0)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ("ttft=500", "--goodput: cannot read the target 'ttft=500'; expected targets in milliseconds"),
        ("itl:50", "cannot read the target 'itl:50'"),
        ("ttft:0", "cannot read the target 'ttft:0'"),
        ("ttft:-5", "cannot read the target 'ttft:-5'"),
        ("ttft:nan", "cannot read the target 'ttft:nan'"),
        ("ttft:1e999", "cannot read the target 'ttft:1e999'"),
        ("ttft:5 ttft:6", "the target 'ttft' is there twice"),
        ("", "no target"),
        ([], "no target"),
    ],
)
def test_other_targets_are_refused(targets, message):
    with pytest.raises(InputError) as caught:
        parse_goodput(targets)
    assert message in str(caught.value)


def test_a_request_counts_when_it_meets_every_target():
    rule = parse_goodput("ttft:500 tpot:50 e2el:2000")
    ttft = np.array([0.5, 0.501, 0.1, 0.1, 0.1, 0.1])
    tpot = np.array([0.05, 0.01, 0.051, nan, 0.01, 0.01])
    end_to_end = np.array([2.0, 1.0, 1.0, 0.1, nan, 2.01])
    assert rule.met(ttft, tpot, end_to_end).tolist() == [True, False, False, True, False, False]


def test_a_rule_reads_well():
    assert str(parse_goodput("ttft:500 tpot:50")) == "TTFT ≤ 500 ms, TPOT ≤ 50 ms"


@pytest.mark.parametrize("targets", ["ttft:500", "tpot:0.125 e2el:12000", "ttft:1 tpot:2 e2el:3"])
def test_what_a_rule_spells_is_read_again(targets):
    assert set(parse_goodput(targets).spelled.split()) == set(targets.split())
    assert parse_goodput(parse_goodput(targets).spelled) == parse_goodput(targets)
