"""The benchmark of ``iteration_time``: what it prints is about the batches of a real replay."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "bench" / "iteration_time.py"


def test_it_times_every_kind_of_batch_beside_the_plain_version(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    rows = [f"2024-05-10 00:00:{second:02d}.0,{700 + 37 * second},{20 + second}" for second in range(60)]
    trace.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n" + "\n".join(rows) + "\n", encoding="utf-8")
    arguments = [str(trace), "--policy", "sarathi-serve", "--request-rate", "40", "--replays", "1", "--json"]
    done = subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True, check=True)
    lines = {line["batches"]: line for line in json.loads(done.stdout)}
    average = lines.pop("average")
    assert sum(line["calls"] for line in lines.values()) == average["calls"] > 100
    assert {"decodes only", "one chunk", "more chunks"} == set(lines)
    assert min(line["us"] for line in lines.values()) <= average["us"] <= max(line["us"] for line in lines.values())
    assert average["largest_difference"] < 1e-12
