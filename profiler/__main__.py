"""``python -m profiler``: measure this machine, import somebody's tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from profiler.calibrate_command import calibrate_command
from profiler.fit_table import fit_command
from profiler.show import show_command
from traces.command_line import new_app, new_console, run
from traces.errors import InputError

if TYPE_CHECKING:
    from profiler.device import Device
    from profiler.kernels import Kernels
    from profiler.model import Model
    from profiler.profile import Profile

HELP = """Measure devices, import measurements, fit and calibrate cost models.

With no command at all it measures the CPU of this machine in less than a minute: the kernels of a model of
60 million parameters, at sizes that it chooses itself, where it is least sure.

A profile is a folder with profile.json (the device, its driver, how it was timed, the plan of the measuring) and
ops.parquet (one row per op and shape, with why it was chosen). No row is faster than the device can be, no table is
in another unit than it says, and rows that contradict each other are left out and counted.

From measuring to simulating:
[bold]python -m profiler --budget 2m --output out/mine[/] (or import somebody's tables),
[bold]python -m profiler fit out/mine[/] to see how well it fits rows that it did not see,
[bold]python -m simulator run --profile out/mine ...[/],
[bold]python -m profiler calibrate --run out/replay --profile out/mine --output out/mine.json[/] once the engine ran.
"""
DEFAULT_COMMAND = "measure"
OPS_SHARE = 0.5
"""Of the budget, what single ops get; the rest goes to whole iterations."""
HELP_OPTIONS = ("-h", "--help")


class _Group(TyperGroup):
    """Takes options without a command as those of ``measure``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or (args[0].startswith("-") and args[0] not in HELP_OPTIONS):
            args = [DEFAULT_COMMAND, *args]
        return super().parse_args(ctx, args)


app = new_app(HELP)


@app.callback(cls=_Group, help=HELP)
def _commands() -> None: ...


AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object, for machines.")]


@app.command(DEFAULT_COMMAND)
def measure_command(
    model: Annotated[
        str,
        typer.Option("--model", "-m", help="A preset or a Hugging Face config.json: whose kernels to time."),
    ] = "llama-60m",
    device: Annotated[
        str,
        typer.Option(
            "--device",
            "-d",
            help="cpu; cuda (the GPU here); or the preset or JSON file that the GPU here is.",
        ),
    ] = "cpu",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The folder to write. Default: out/profile-<device>."),
    ] = None,
    budget: Annotated[
        str, typer.Option(metavar="DURATION", help="How long to measure: 60, 60s, 2m, 1h. More gives more shapes.")
    ] = "40s",
    dtype: Annotated[
        str | None, typer.Option(help="bfloat16, float16 or float32. Default: what the model is made of.")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads that compute on a CPU.")] = 1,
    iterations: Annotated[
        bool,
        typer.Option(
            "--iterations/--ops-only",
            help="Also time whole iterations of the engine, which cost more than their ops (on one GPU).",
        ),
    ] = True,
    tensor_parallel_size: Annotated[
        int, typer.Option("--tensor-parallel-size", "-tp", min=1, help="Time one GPU's share of so many.")
    ] = 1,
    as_json: AsJson = False,
) -> None:
    """Measure this machine and write a profile (the default command).

    It starts with both sides of tile edges, the longest contexts, mixed batches and shapes that fill the space. Then
    it spends what is left of the budget, round by round, on shapes where a small model of the times so far is least
    sure, weighed by their share of an iteration and what measuring them costs, and again on shapes whose times
    scatter. With --iterations half of the budget goes to whole iterations of the engine, chosen likewise.

    Example: [bold]python -m profiler measure --model llama-3.1-8b --device cuda --budget 5m[/]
    """
    from dataclasses import replace

    from profiler.candidates import iteration_candidates, op_candidates
    from profiler.device import load_device
    from profiler.duration import parse_duration
    from profiler.grid import cpu_grid, gpu_grid
    from profiler.measure import Measurement
    from profiler.plan import MeasuringPlan
    from profiler.profile import profile_folder

    budget_s = parse_duration(budget, option="--budget")
    layers, target = _model(model, dtype), None if device == "cuda" else load_device(device)
    layers.check_parallel(tensor_parallel_size)
    folder = output or Path(f"out/profile-{device if target is None else target.name}")
    with profile_folder(folder) as write:
        kernels = _kernels("cpu" if target is not None and target.is_cpu else "cuda", layers.dtype, threads)
        layers = replace(layers, fused=kernels.fused)
        machine = kernels.machine()
        grid = cpu_grid(layers) if machine.is_cpu else gpu_grid(layers, machine.memory_bytes)
        whole = iterations and tensor_parallel_size == 1
        ops_s = budget_s * (OPS_SHARE if whole else 1)
        with _bar(f"measuring {machine.device_name}") as progress:
            measurement = Measurement(kernels, layers, target or _device_called(machine.device_name))
            ops = op_candidates(layers, grid, tensor_parallel_size)
            plan = MeasuringPlan(measurement, kernels, ops, layers, tp=tensor_parallel_size)
            plan.run(ops_s, lambda share, what: progress(share * ops_s / budget_s, what))
            if whole:
                batches = iteration_candidates(layers, grid)
                timed = kernels.iterations(model, [*batches.start, *batches.pool])
                plan = MeasuringPlan(measurement, timed, batches, layers)
                plan.run(
                    budget_s - ops_s,
                    lambda share, what: progress((ops_s + share * (budget_s - ops_s)) / budget_s, what),
                )
        profile = measurement.profile()
        write(profile)
    _report(folder, profile, as_json)


@app.command("import", no_args_is_help=True)
def import_command(
    path: Annotated[Path, typer.Argument(help="A table, or a folder of tables, of one device.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write.", show_default=False)],
    device: Annotated[
        str | None, typer.Option("--device", "-d", help="A preset or JSON file. Default: as the folders say.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Whose layers they are, where only a folder's name would tell."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Turn other projects' tables into a profile, and refuse rows that no device can reach.

    Known are the tables of aiconfigurator, LLMServingSim (first release and current) and Vidur.

    Example: [bold]python -m profiler import profiles/aiconfigurator/a100_sxm --output out/a100[/]
    """
    from profiler.importers import import_tables
    from profiler.profile import write_profile

    with _status(f"reading {path}"):
        profile = import_tables(path, device, model=model)
    write_profile(output, profile)
    _report(output, profile, as_json)


def _model(name: str, dtype: str | None) -> Model:
    from dataclasses import replace

    from profiler.model import DTYPE_BYTES, load_model

    model = load_model(name)
    if dtype is not None and dtype not in DTYPE_BYTES:
        raise InputError(repr(dtype), where="--dtype", expected=f"one of {', '.join(DTYPE_BYTES)}")
    return model if dtype is None else replace(model, dtype=dtype)


def _device_called(driver_name: str) -> Device:
    from profiler.device import device_called

    found = device_called(driver_name)
    if found is None:
        wish = "a JSON file with its datasheet (see profiler/presets/devices)"
        raise InputError(f"no preset for {driver_name!r}", where="--device", expected=wish)
    return found


def _kernels(accelerator: str, dtype: str, threads: int) -> Kernels:
    from importlib.metadata import entry_points

    from profiler.kernels import ENTRY_POINTS

    found = list(entry_points(group=ENTRY_POINTS))
    if not found:
        raise InputError("no engine is installed to run the kernels", expected="pip install charioteer[engine]")
    try:
        make: Callable[..., Kernels] = found[0].load()
    except ModuleNotFoundError as error:
        what = f"measuring needs {error.name}, which is not installed"
        raise InputError(what, expected="pip install charioteer[engine]") from error
    return make(accelerator=accelerator, dtype=dtype, threads=threads)


def _report(folder: Path, profile: Profile, as_json: bool) -> None:
    from profiler.profile_table import print_profile, summary

    if as_json:
        import json

        print(json.dumps({"output": str(folder), **summary(profile)}, indent=2))
        return
    print_profile(new_console(), profile, folder)


@contextmanager
def _status(text: str) -> Iterator[None]:
    from rich.console import Console

    with Console(stderr=True).status(text):
        yield


@contextmanager
def _bar(text: str) -> Iterator[Callable[[float, str], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[op]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(text, total=1.0, op="")
        yield lambda share, op: progress.update(task, completed=share, op=op)


app.command("fit", no_args_is_help=True)(fit_command)
app.command("show", no_args_is_help=True)(show_command)
app.command("calibrate", no_args_is_help=True)(calibrate_command)

if __name__ == "__main__":
    run(app, "python -m profiler")
