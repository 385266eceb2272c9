"""The benchmark of the simulator: it measures what it says, in every mode."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).resolve().parents[2] / "bench" / "simulator.py"


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True, check=True)


def test_a_trace_at_its_rate_and_four_times_it(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    rows = [f"2024-05-10 00:00:{second:02d}.0,{700 + 37 * second},{20 + second}" for second in range(60)]
    trace.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n" + "\n".join(rows) + "\n", encoding="utf-8")
    done = bench("--quick", str(trace), "--policy", "sarathi-serve", "--step", "--json")
    results: list[dict[str, Any]] = json.loads(done.stdout)
    assert [(each["case"]["rate"], each["case"]["step"]) for each in results] == [
        (1.0, False),
        (1.0, True),
        (4.0, False),
        (4.0, True),
    ]
    assert {each["requests"] for each in results} == {60}
    digests = [each["digest"] for each in results]
    assert digests[0] == digests[1] != digests[2] == digests[3]
    assert all(each["requests_per_s"] > 0 and each["peak_mib"] > 1 for each in results)


def test_growth_with_requests_and_replicas(tmp_path: Path) -> None:
    output = tmp_path / "bench"
    sizes = ("--most-requests", "1000", "--most-replicas", "1")
    done = bench("--policy", "vllm", *sizes, "--output", str(output))
    assert "vllm" in done.stdout
    results = json.loads((output / "results.json").read_text(encoding="utf-8"))["results"]
    series = [(each["case"]["grows"], each["case"]["router"]) for each in results]
    assert series[0][0] == "requests"
    assert {router for grows, router in series if grows == "replicas"} == {
        "round-robin",
        "least-requests",
        "power-of-two",
    }
    assert "plotly" in (output / "plot.html").read_text(encoding="utf-8")
