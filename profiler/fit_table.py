"""``profiler fit``: fit a profile and show how far the fit is off on rows it did not see."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from traces.command_line import new_console, new_table

if TYPE_CHECKING:
    from rich.table import Table

    from profiler.fitted import FittedDevice

UNSEEN = "unseen batches"


def fit_command(
    profile: Annotated[Path, typer.Argument(help="Profile folder: profile.json and ops.parquet.")],
    device: Annotated[
        str | None, typer.Option(help="Preset or JSON file of the device; by default the profile's.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Write the coefficients to this JSON file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the errors as JSON.")] = False,
) -> None:
    """Fit the cost model of a device to a profile and print its errors on held-out rows.

    Unseen shapes: a fifth of all layers (or head layouts) is kept out of a fit, and predicted by it. Profiled
    shapes: every other token count of every layer is kept out, and predicted from its neighbours. Errors are
    shares of the measured time: median, 90th percentile, and sum of errors over sum of times.
    """
    from rich.console import Console

    from profiler.device import load_device
    from profiler.profile import read_profile
    from profiler.profile_check import device_of
    from profiler.refit import fit_profile

    read = read_profile(profile)
    hardware = device_of(read, None if device is None else load_device(device))
    console = Console(stderr=True)
    with console.status("reading") as status:
        fitted = fit_profile(read, hardware, progress=lambda op: status.update(f"fitting {op}"))
    if output is not None:
        fitted.save(output)
    if as_json:
        typer.echo(json.dumps(errors_of(fitted), indent=2))
        return
    new_console().print(errors_table(fitted))
    for line in _notes(read, fitted, output):
        typer.echo(line)


def errors_of(fitted: FittedDevice) -> dict[str, Any]:
    """Return rows and held-out errors by op."""
    found = {name: {"rows": op.rows, **op.errors} for name, op in fitted.ops.items()}
    if fitted.engine is not None:
        found["iteration"] = {"rows": fitted.engine.rows, UNSEEN: fitted.engine.errors}
    return found


def errors_table(fitted: FittedDevice) -> Table:
    """Return the held-out errors as a table, percent."""
    title = f"Held-out errors on {fitted.device}, % of the measured time"
    table = new_table(title, "op", "fitted to", "held out", "median", "P90", "by time")
    for name, op in fitted.ops.items():
        if not op.errors:
            table.add_row(name, f"{op.rows:,}", "-", "-", "-", "-")
        for kind, errors in op.errors.items():
            table.add_row(f"{name}, {kind}", f"{op.rows:,}", *_cells(errors))
    if (engine := fitted.engine) is not None:
        table.add_row(f"iteration, {UNSEEN}", f"{engine.rows:,}", *_cells(engine.errors))
    return table


def _cells(errors: Mapping[str, float]) -> list[str]:
    shares = [f"{100 * errors[key]:.2f}" for key in ("median", "p90", "time_weighted")]
    return [f"{int(errors['rows']):,}", *shares]


def _notes(read: Any, fitted: FittedDevice, output: Path | None) -> list[str]:
    import numpy as np

    from profiler.fit import trusted

    ops, counts = np.unique(np.asarray(read.table["op"].to_pylist(), dtype=np.str_), return_counts=True)
    notes = []
    for op, count in zip(ops, counts, strict=True):
        if str(op) == "mixed_attention":
            notes.append(f"used by replay-run alone: {count} rows of mixed_attention (else kinds are launched apart)")
        elif str(op) not in (*fitted.ops, "overhead", "iteration" if fitted.engine is not None else ""):
            why = "too few" if trusted(read, str(op)) else "more rows of it beat the roofline"
            notes.append(f"not used: {count} rows of {op} ({why})")
    refused = {reason: count for reason, count in read.meta.get("refused", {}).items() if count}
    if refused:
        notes.append("refused: " + ", ".join(f"{count} {reason}" for reason, count in refused.items()))
    if output is not None:
        notes.append(f"wrote {output}")
    return notes
