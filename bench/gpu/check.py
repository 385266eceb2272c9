"""Stage ``check``: what this machine is, and its two ceilings."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from traces.command_line import new_app, run

app = new_app("What this machine is, and its two ceilings.")


@app.command()
def main(
    device: Annotated[str, typer.Option(help="cuda or cpu.")] = "cuda",
    output: Annotated[Path, typer.Option(help="A JSON file to write.")] = Path("out/gpu/check.json"),
    quick: Annotated[bool, typer.Option("--quick", help="Tiny sizes.")] = False,
) -> None:
    """Print versions, clocks, copy bandwidth and the rate of matrix products."""
    from ceilings import Timer, device_facts, measure_ceilings, open_device

    from traces.files import write_json

    where = open_device(device)
    before = device_facts(where)
    ceilings = measure_ceilings(where, Timer(where), quick=quick)
    after = device_facts(where)
    write_json(output, {"before": before, "after": after, **asdict(ceilings)})
    for name, value in after.items():
        print(f"{name:32}{value}")
    print(f"{'copies (read + write)':32}{ceilings.copy_bytes_per_s / 1e9:,.0f} GB/s")
    print(f"{'matrix products':32}{ceilings.flops_per_s / 1e12:,.2f} TFLOP/s")


if __name__ == "__main__":
    run(app, "bench/gpu/check.py")
