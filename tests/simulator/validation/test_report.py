"""What people get to see: the terminal, and the page."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from html import escape
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from simulator.validation import Judge
from simulator.validation.agreement import METRICS

ROOT = Path(__file__).resolve().parents[3]
Make = Callable[..., Any]


@pytest.fixture
def shown(measured: Make, judge: Judge) -> Callable[..., tuple[Any, str, str]]:
    """A validation of an engine, what the terminal shows at 100 columns, and the page."""

    def show(**engine: float) -> tuple[Any, str, str]:
        made = measured({"below": 3.0, "near": 6.0, "above": 9.0}, **engine)
        validation = made.validation(
            drift={("below", "vllm"): 0.011}, command="python -m engine validate --loads '<0.5>'"
        )
        output = StringIO()
        judge.show(validation, console=Console(file=output, width=100, highlight=False))
        return validation, output.getvalue(), (made.folder / "report.html").read_text()

    return show


def test_the_terminal_shows_every_figure_within_100_columns(shown: Callable[..., Any]) -> None:
    validation, text, _ = shown(slower=1.15)
    assert max(map(len, text.splitlines())) <= 100
    assert "…" not in text
    assert all(re.search(rf"^ {re.escape(name)}( \(m?s\))? +\d", text, re.MULTILINE) for name in METRICS)
    assert text.count("measured predicted") == 3 * 3
    flat = " ".join(text.split())
    for finding in validation.verdict:
        assert f"{finding.subject}: {finding.text}" in flat
    assert re.search(r"falls short +in sum", text)
    far = sum(
        abs(case.metrics[name].deviation) > 0.08 for case in validation.cases for name in ("TPOT P50", "End-to-end P50")
    )
    assert far > 0
    assert text.count("!") == far + 1
    assert "+1.1" in text


def test_the_page_needs_nothing_else_and_says_the_verdict_first(shown: Callable[..., Any]) -> None:
    validation, _, page = shown(slower=1.15)
    assert not re.search(r'<(script|link|img)[^>]+(src|href)=["\']?http', page)
    assert page.startswith("<!DOCTYPE html>")
    body = page[page.index("</head>") :]
    places = [body.index(escape(finding.text)) for finding in validation.verdict]
    assert places == sorted(places)
    assert places[-1] < body.index("figure-iterations")
    assert escape("python -m engine validate --loads '<0.5>'") in body
    assert "<0.5>" not in body
    assert "a plain GPU" in body
    assert body.count('class="js-plotly-plot"') <= 4
    for name in ("iterations", "metrics", "distributions", "error"):
        assert f'id="figure-{name}"' in body
    for policy in validation.policies:
        assert f"<h3>{policy}</h3>" in body


def test_importing_it_loads_nothing_heavy() -> None:
    script = "import simulator.validation, sys; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = set(done.stdout.split())
    assert "simpy" in loaded
    assert not loaded & {"torch", "scipy", "sklearn", "plotly", "rich", "transformers"}
