"""``profiler calibrate``: correct a cost model by a recorded run, and say how much better it is on the other half."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from traces.command_line import new_console, new_table
from traces.errors import InputError

if TYPE_CHECKING:
    from rich.table import Table

    from profiler.calibration import Calibration, Fit
    from profiler.recorded_run import RecordedRun


def calibrate_command(
    run: Annotated[
        Path, typer.Option("--run", "-r", help="A run record of the engine, as `python -m engine replay` writes it.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The JSON file to write: what --profile of any command takes.")
    ],
    profile: Annotated[
        Path | None,
        typer.Option(
            "--profile",
            "-p",
            help="What to correct: a profile folder, or a JSON file. Default: what ships for the device.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write it even if the other half gets worse.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, for machines.")] = False,
) -> None:
    """Correct what an engine adds to its ops, by a run that it recorded.

    The policy is run again by the run's own clock, which gives back what every iteration held. Every other
    twentieth of the run is fitted to: factors on the ops, and seconds an iteration, a chunk, a decode and a token.
    The rest of the run tests them. If it is predicted worse than before, nothing is written (status 2).

    Example: [bold]python -m profiler calibrate --run out/replay --profile out/profile-cpu --output out/mine.json[/],
    then [bold]python -m simulator run --profile out/mine.json[/] with the options of before.
    """
    from profiler.calibration import calibrate
    from profiler.cost_model import load_cost_model
    from profiler.recorded_run import read_recorded

    if output.suffix != ".json":
        raise InputError("is not the name of a JSON file", where=output, expected="a name that ends in .json")
    recorded = read_recorded(run)
    check_profile(profile, recorded)
    found = calibrate(recorded, load_cost_model(recorded.deployment, profile=profile))
    if as_json:
        typer.echo(json.dumps({"run": str(run), "output": str(output), **found.as_dict()}, indent=2))
    else:
        console = new_console()
        console.print(errors_table(found))
        console.print(terms_table(found))
    if found.worse is not None and not force:
        what = f"on the half that was not fitted to, {found.worse}: nothing is written"
        raise InputError(
            what, where=run, expected="a run that this can be learned from (--force writes it all the same)"
        )
    found.device.save(output)
    if not as_json:
        typer.echo(f"written: {output}")


def check_profile(profile: Path | None, run: RecordedRun) -> None:
    """Refuse a profile folder that was measured for another model than the run's.

    Raises
    ------
    InputError
        If it was. That it is of another device is refused when it is loaded.
    """
    from profiler.profile import read_profile

    if profile is None or not profile.is_dir():
        return
    measured, ran = read_profile(profile, check=False).meta["model"], run.deployment.spec.name
    if measured is not None and measured != ran:
        raise InputError(f"was measured for {measured}", where=profile, expected=f"a profile for {ran}, which ran")


def errors_table(found: Calibration) -> Table:
    """Return the errors of both halves before and after."""
    table = new_table("Errors, % of the measured time", "half", "iterations", "", "median", "P90", "by time", "bias")
    for name, (before, after) in (("fitted to", found.fitted), ("tested on", found.tested)):
        table.add_row(name, f"{int(before.errors['rows']):,}", "before", *_cells(before))
        table.add_row("", "", "after", *_cells(after))
    return table


def _cells(fit: Fit) -> list[str]:
    shares = [f"{100 * fit.errors[key]:.2f}" for key in ("median", "p90", "time_weighted")]
    return [*shares, f"{100 * fit.bias:+.2f}"]


def terms_table(found: Calibration) -> Table:
    """Return factors and costs before and after."""
    from profiler.engine_fit import COSTS

    table = new_table(f"The engine, on {found.after.layers} layers", "", "before", "after")
    for group, factor in found.after.factors.items():
        table.add_row(f"{group}, times", f"{found.before.factors[group]:.3f}", f"{factor:.3f}")
    for name in COSTS:
        before_s, after_s = getattr(found.before, name), getattr(found.after, name)
        table.add_row(f"{name.removesuffix('_s')}, us", f"{1e6 * before_s:,.2f}", f"{1e6 * after_s:,.2f}")
    return table
