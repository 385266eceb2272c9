from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from policies.catalog import POLICIES
from simulator.table import comparison_table, print_comparison
from traces.metrics import measure


@pytest.fixture(scope="module")
def runs(played):
    return played(*POLICIES)


@pytest.fixture(scope="module")
def metrics(runs):
    return {name: measure(run) for name, run in runs.items()}


def printed(runs, metrics, **options):
    file = io.StringIO()
    print_comparison(runs, metrics, Console(file=file, highlight=False, **options))
    return file.getvalue()


def test_every_policy_fits_into_100_columns_whole(runs, metrics):
    assert len(metrics) == len(POLICIES)
    lines = printed(runs, metrics, width=100).splitlines()
    assert max(map(len, lines)) <= 100
    (row,) = [line for line in lines if line.strip().startswith("TBT P99 (ms)")]
    assert len(re.findall(r"\d[\d,.]*", row.replace("TBT P99", ""))) == len(POLICIES)
    assert "…" not in "".join(lines)


def test_piped_it_has_no_colours_and_marks_the_best_with_a_star(runs, metrics, capsys):
    print_comparison(runs, metrics)
    text = capsys.readouterr().out
    assert "\x1b" not in text
    assert re.search(r"TBT P99 \(ms\).*\d\*", text)
    assert "* best of the row" in text
    assert max(map(len, text.splitlines())) <= 100


def test_on_a_terminal_the_best_is_bold_and_green(runs, metrics):
    text = printed(runs, metrics, width=100, force_terminal=True, color_system="standard")
    assert re.search(r"\x1b\[1;32m[\d,.]+\*", text)


def test_the_verdict_and_what_was_run_are_there(runs, metrics):
    text = " ".join(printed(runs, metrics).split())
    assert "serves this workload best" in text
    assert "plain-7b on 1 x plain-gpu" in text
    assert "nothing was measured on plain-gpu" in text


def test_a_name_is_no_markup(runs, metrics):
    name = "[/red]vllm[bold]"
    text = printed(runs, {name: metrics["vllm"], "orca": metrics["orca"]})
    assert name in text


def test_one_run_has_no_winner(metrics):
    file = io.StringIO()
    Console(file=file, width=80).print(comparison_table({"vllm": metrics["vllm"]}))
    assert "*" not in file.getvalue()
