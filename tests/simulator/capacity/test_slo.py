"""SLOs: how they are written, by how much they are kept or missed."""

from math import exp, log, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.capacity.slo import FIGURES, WORDS, parse_slo
from tests.simulator.capacity.made_up import made_up
from traces.errors import InputError
from traces.goodput import parse_goodput


def test_a_tbt_alone_is_the_slo_of_the_papers():
    slo = parse_slo("tbt:100")
    assert str(slo) == "P99 TBT ≤ 100 ms and median delay ≤ 2000 ms"
    assert [(term.latency, term.figure, term.limit_s) for term in slo.terms] == [
        ("TBT", "p99", 0.1),
        ("Scheduling delay", "p50", 2.0),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("itl:100", "P99 TBT ≤ 100 ms and median delay ≤ 2000 ms"),
        ("tbt:100 delay:500", "P99 TBT ≤ 100 ms and median delay ≤ 500 ms"),
        ("p90-ttft:1.5e3,mean-tpot:40", "P90 TTFT ≤ 1500 ms and mean TPOT ≤ 40 ms"),
        ("max-e2el:9000 p95-e2el:100", "max end-to-end ≤ 9000 ms and P95 end-to-end ≤ 100 ms"),
        ("P50-TBT:20 p99-tbt:100 p99-delay:1", "median TBT ≤ 20 ms and P99 TBT ≤ 100 ms and P99 delay ≤ 1 ms"),
    ],
)
def test_terms_are_read_as_they_are_said(text, said):
    assert str(parse_slo(text)) == said


@given(word=st.sampled_from(sorted(WORDS)), figure=st.sampled_from(FIGURES), limit_ms=st.floats(1e-3, 1e6))
def test_any_figure_of_any_latency_has_a_limit(word, figure, limit_ms):
    term = parse_slo(f"{figure}-{word}:{limit_ms!r}").terms[0]
    assert (term.latency, term.figure) == (WORDS[word], figure)
    assert term.limit_s == pytest.approx(limit_ms / 1e3)


@given(
    limits_ms=st.dictionaries(
        st.tuples(st.sampled_from(FIGURES), st.sampled_from(["ttft", "tbt", "tpot", "e2el", "delay"])),
        st.floats(1e-3, 1e6),
        min_size=1,
    )
)
def test_what_it_spells_is_read_again(limits_ms):
    slo = parse_slo([f"{figure}-{word}:{limit_ms!r}" for (figure, word), limit_ms in limits_ms.items()])
    again = parse_slo(slo.spelled)
    assert [(term.metric, pytest.approx(term.limit_s)) for term in again.terms] == [
        (term.metric, term.limit_s) for term in slo.terms
    ]
    assert again.spelled == slo.spelled


def test_a_goodput_rule_alone_spells_no_term():
    rule = parse_goodput("ttft:500")
    slo = parse_slo(goodput=rule, share=0.9)
    assert slo.spelled == ""
    assert parse_slo(slo.spelled, goodput=rule, share=0.9) == slo


@pytest.mark.parametrize(
    "text",
    ["", "tbt", "tbt:", "tbt:0", "tbt:-3", "tbt:inf", "p98-tbt:10", "latency:10", "tbt:100 itl:100", "tbt=100", "1:1"],
)
def test_what_cannot_be_read_is_refused(text):
    with pytest.raises(InputError, match="--slo"):
        parse_slo(text)


@pytest.mark.parametrize("share", [0.0, -1.0, 1.01, nan])
def test_a_share_is_above_0_and_at_most_1(share):
    with pytest.raises(InputError, match="--goodput-share"):
        parse_slo("", goodput=parse_goodput("ttft:500"), share=share)


def test_the_margin_is_the_log_of_the_worst_part_over_its_limit():
    slo = parse_slo("tbt:100")
    assert slo.margin(made_up(0.05, delay_s=1.0)) == pytest.approx(log(0.5))
    assert slo.margin(made_up(0.05, delay_s=6.0)) == pytest.approx(log(3))
    assert slo.bound_by(made_up(0.05, delay_s=6.0)) == "median delay"
    assert slo.worst(made_up(0.2, delay_s=0.0)) == "P99 TBT 200 ms"


@given(st.floats(1e-4, 10))
def test_the_slo_holds_where_the_margin_is_at_most_0(tbt_s):
    slo = parse_slo("tbt:100")
    assert (slo.margin(made_up(tbt_s)) <= 0) == (tbt_s <= 0.1 * exp(1e-16))


def test_what_no_request_has_is_kept():
    slo = parse_slo("tbt:100 delay:10")
    assert slo.margin(made_up(nan, delay_s=0.0)) < 0


def test_a_goodput_rule_holds_at_its_share():
    slo = parse_slo("", goodput=parse_goodput("ttft:500"), share=0.9)
    assert str(slo) == "90 % of requests with TTFT ≤ 500 ms"
    assert slo.margin(made_up(9.0, goodput=0.95)) == pytest.approx(log(0.5))
    assert slo.margin(made_up(9.0, goodput=0.8)) == pytest.approx(log(2))
    assert slo.worst(made_up(9.0, goodput=0.8)) == "goodput 80 %"
    every = parse_slo("", goodput=parse_goodput("ttft:500"), share=1.0)
    assert every.margin(made_up(9.0, goodput=1.0)) <= 0 < every.margin(made_up(9.0, goodput=0.9999))
