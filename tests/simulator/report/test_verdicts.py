from __future__ import annotations

from dataclasses import replace

import pytest

from simulator.verdicts import contenders, keeping_up, verdicts, winner
from traces.goodput import parse_goodput
from traces.metrics import measure


@pytest.fixture(scope="module")
def metrics(played):
    names = ("faster-transformer", "orca", "vllm", "sarathi-serve")
    return {name: measure(run) for name, run in played(*names, requests=300, rate_per_s=4.5).items()}


def test_it_says_who_wins_and_why(metrics):
    text = "\n".join(verdicts(metrics))
    vllm, sarathi = metrics["vllm"], metrics["sarathi-serve"]
    assert text.startswith("sarathi-serve serves this workload best: it keeps up with the arrivals")
    factor = vllm.tbt_s.p99 / sarathi.tbt_s.p99
    assert f"sarathi-serve has the lowest P99 TBT: {1e3 * sarathi.tbt_s.p99:.1f} ms, {factor:.2f}x below vllm" in text
    assert f"stall behind whole prefills: {vllm.stalls.count} generation stalls" in text
    assert "No iteration of sarathi-serve holds more than 512 tokens" in text
    assert "Not keeping up, by their median scheduling delay: faster-transformer" in text


def test_a_run_whose_queue_grows_is_no_contender(metrics):
    assert "faster-transformer" not in keeping_up(metrics)
    assert metrics["faster-transformer"].tbt_s.p99 < metrics["sarathi-serve"].tbt_s.p99
    assert set(contenders(metrics)) == {"vllm", "sarathi-serve"}


def test_where_none_keeps_up_those_with_the_most_output_compete(metrics):
    late = {
        name: replace(each, scheduling_delay_s=replace(each.scheduling_delay_s, p50=60.0))
        for name, each in metrics.items()
    }
    assert keeping_up(late) == {}
    assert winner(late) == "sarathi-serve"
    assert verdicts(late)[0].startswith("sarathi-serve serves this workload best, though none keeps up")


def test_goodput_decides_where_targets_were_given(metrics, played):
    runs = played("vllm", "sarathi-serve", requests=300, rate_per_s=4.5)
    strict = {name: measure(run, parse_goodput("tpot:20")) for name, run in runs.items()}
    shares = {name: each.goodput.share for name, each in strict.items()}
    assert shares["sarathi-serve"] > shares["vllm"] + 0.005
    assert winner(strict) == "sarathi-serve"
    text = "\n".join(verdicts(strict))
    assert "Requests within TPOT ≤ 20 ms: " in text
    turned = {
        "vllm": replace(strict["vllm"], goodput=strict["sarathi-serve"].goodput),
        "sarathi-serve": replace(strict["sarathi-serve"], goodput=strict["vllm"].goodput),
    }
    assert winner(turned) == "vllm"


def test_equal_runs_have_no_winner_of_a_metric(metrics):
    text = "\n".join(verdicts({"one": metrics["vllm"], "other": metrics["vllm"]}))
    assert "P99 TBT hardly differs" in text
    assert "Median TTFT hardly differs" in text
    assert "Throughput hardly differs" in text
    assert "No policy is better than another in any metric here." in text


def test_unfinished_requests_and_preemptions_are_said(metrics):
    runs = {"a": replace(metrics["vllm"], preemptions=7), "b": replace(metrics["vllm"], unfinished=3)}
    text = "\n".join(verdicts(runs))
    assert "Preemptions for lack of KV blocks: a 7." in text
    assert "Requests left unfinished, and missing from the latencies: b 3." in text
    assert winner(runs) == "a"


def test_a_single_run_is_described(metrics):
    (sentence,) = verdicts({"vllm": metrics["vllm"]})
    assert sentence.startswith("vllm serves ")
    assert f"{metrics['vllm'].stalls.count} generation stalls" in sentence


def test_runs_of_single_tokens_have_no_gaps_and_still_a_verdict(metrics):
    nothing = metrics["vllm"].goodput
    assert nothing is None
    empty = {
        name: replace(each, tbt_s=replace(each.tbt_s, count=0, p50=float("nan"), p99=float("nan")))
        for name, each in metrics.items()
    }
    assert winner(empty) in {"vllm", "sarathi-serve"}
    assert not any("P99 TBT: " in sentence for sentence in verdicts(empty))
