"""What ``run`` and ``compare`` do: check, simulate, measure, report."""

from __future__ import annotations

import json
import shlex
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from policies.catalog import PolicyChoice
from simulator.comparison import simulate_all
from simulator.deployment_options import DeploymentOptions
from simulator.progress import progress_bars
from simulator.scenario import build_scenario
from simulator.significance.options import SignificanceOptions
from simulator.simulation import Scenario
from traces.errors import InputError
from traces.files import whole_folder, write_json
from traces.goodput import GoodputRule, parse_goodput
from traces.metrics import Metrics, measure
from traces.perfetto import export_perfetto
from traces.run_record import FILES, RunRecord, read_run
from traces.source import open_workload
from traces.stalls import stall_threshold

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from simulator.significance.significance import Significance

COMPARISON = "comparison.json"
SIGNIFICANCE = "significance.json"
REPORT = "report.html"
RUN = "run.json"
TIMELINE = ".perfetto.json.gz"


@dataclass(frozen=True, kw_only=True)
class Request(DeploymentOptions, SignificanceOptions):
    """What a person asked of ``run`` or ``compare``; each field is the option of that name."""

    workload: str
    output: Path
    strict: bool = False
    request_rate: float | None = None
    burstiness: float = 1.0
    num_prompts: int | None = None
    seed: int = 0
    sort: bool = False
    goodput: list[str] | None = None
    perfetto: bool = False


def compare(request: Request, *, as_json: bool = False) -> dict[str, Metrics]:
    """Simulate what was asked for, write records and report to ``request.output``, and print the table.

    Raises
    ------
    InputError
        If anything asked for is wrong; nothing is written then.
    """
    goodput = parse_goodput(request.goodput) if request.goodput else None
    scenario, choices = prepare(request)
    request.check_significance(list(choices))
    with whole_folder(request.output, marker=COMPARISON, is_ours=_is_ours) as folder:
        with progress_bars(choices, len(scenario.workload)) as on_progress:
            simulate_all(scenario, choices, folder, on_progress)
        runs = {label: read_run(folder / label) for label in choices}
        metrics = _measure(runs, goodput)
        significance = _judge(request, choices, metrics, goodput) if request.significance else None
        _write(folder, request, runs, metrics, significance)
    _show(request.output / REPORT, runs, metrics, significance, as_json=as_json)
    return metrics


def _judge(
    request: Request,
    choices: Mapping[str, PolicyChoice],
    metrics: Mapping[str, Metrics],
    goodput: GoodputRule | None,
) -> Significance:
    from simulator.significance.session import judge

    return judge(request, choices, metrics, goodput)


def report(folders: Sequence[Path], output: Path, goodput: list[str] | None, *, as_json: bool = False) -> None:
    """Print the table of run records that are there already, and write their report to ``output``.

    Parameters
    ----------
    folders
        Run records, or what ``compare`` wrote: then all of its runs.

    Raises
    ------
    InputError
        If a folder holds no run record, two runs have the same label, their workloads differ, or ``output`` is
        not named as an HTML file.
    """
    from simulator.report import write_report

    if output.suffix != ".html":
        raise InputError("is not the name of a report", where=output, expected="a name that ends in .html")
    rule = parse_goodput(goodput) if goodput else None
    runs = {label: read_run(folder) for label, folder in _labelled(folders).items()}
    _check_same_workload(runs)
    metrics = _measure(runs, rule)
    write_report(output, {label: (runs[label], metrics[label]) for label in runs})
    _show(output, runs, metrics, None, as_json=as_json)


def _labelled(folders: Sequence[Path]) -> dict[str, Path]:
    """Label each run by its folder's name, and by the folder above it too where that is not enough."""
    found = [run for folder in folders for run in _run_folders(folder)]
    names = [folder.resolve().name for folder in found]
    labels = {}
    for name, folder in zip(names, found, strict=True):
        label = name if names.count(name) == 1 else f"{folder.resolve().parent.name}/{name}"
        if label in labels:
            raise InputError(f"two runs are called {label}", where=folder, expected="folders with names of their own")
        labels[label] = folder
    return labels


def _run_folders(folder: Path) -> list[Path]:
    if (folder / COMPARISON).is_file():
        return sorted(path.parent for path in folder.glob(f"*/{RUN}"))
    return [folder]


def _check_same_workload(runs: Mapping[str, RunRecord]) -> None:
    first, *others = runs
    for label in others:
        for name in ("prompt_tokens", "output_tokens"):
            if not np.array_equal(getattr(runs[first].requests, name), getattr(runs[label].requests, name)):
                what = f"{label} served other requests than {first}"
                raise InputError(what, expected="runs of one workload, of which one can be better")


def _measure(runs: Mapping[str, RunRecord], goodput: GoodputRule | None) -> dict[str, Metrics]:
    threshold_s = stall_threshold(runs.values())
    return {label: measure(run, goodput, stall_threshold_s=threshold_s) for label, run in runs.items()}


def prepare(request: Request) -> tuple[Scenario, dict[str, PolicyChoice]]:
    """Return what to simulate, checked as far as it can be without running it."""
    choices = request.choices()
    cluster = request.cluster_settings()
    workload = open_workload(
        request.workload,
        num_prompts=request.num_prompts,
        request_rate=request.request_rate,
        burstiness=request.burstiness,
        seed=request.seed,
        sort=request.sort,
    )
    scenario = build_scenario(
        workload,
        model=request.model,
        device=request.device,
        profile=request.profile,
        strict=request.strict,
        max_model_len=request.max_model_len,
        policies=choices.values(),
        seed=request.seed,
        cluster=cluster,
        tensor_parallel_size=request.tensor_parallel_size,
        pipeline_parallel_size=request.pipeline_parallel_size,
        gpu_memory_utilization=request.gpu_memory_utilization,
        block_size=request.block_size,
    )
    return scenario, choices


def _is_ours(entry: Path) -> bool:
    if entry.is_dir():
        return {path.name for path in entry.iterdir()} <= set(FILES) and (entry / RUN).is_file()
    return entry.name in (COMPARISON, SIGNIFICANCE, REPORT) or entry.name.endswith(TIMELINE)


def _document(metrics: Mapping[str, Metrics]) -> dict[str, Any]:
    return {label: measured.as_dict() for label, measured in metrics.items()}


def _write(
    folder: Path,
    request: Request,
    runs: Mapping[str, RunRecord],
    metrics: Mapping[str, Metrics],
    significance: Significance | None,
) -> None:
    from simulator.report import write_report

    write_json(folder / COMPARISON, _document(metrics))
    if significance is not None:
        write_json(folder / SIGNIFICANCE, significance.as_dict())
    pairs = {label: (runs[label], metrics[label]) for label in runs}
    write_report(folder / REPORT, pairs, command=command_line("compare", request), significance=significance)
    if request.perfetto:
        for label, run in runs.items():
            export_perfetto(run, folder / f"{label}{TIMELINE}")


def command_line(name: str, request: DataclassInstance, *, without: Container[str] = ("output",)) -> str:
    """Return the command that writes the same again, fields being options of their names; ``without`` those that do not
    show in what is written."""
    words = [f"python -m simulator {name}"]
    for option in fields(request):
        value, flag = getattr(request, option.name), f"--{option.name.replace('_', '-')}"
        if option.name in without or value == option.default:
            continue
        if value is True:
            words.append(flag)
        else:
            words += [f"{flag} {shlex.quote(str(each))}" for each in (value if isinstance(value, list) else [value])]
    return " ".join(words)


def _show(
    path: Path,
    runs: Mapping[str, RunRecord],
    metrics: Mapping[str, Metrics],
    significance: Significance | None,
    *,
    as_json: bool,
) -> None:
    from simulator.significance.table import print_significance
    from simulator.table import print_comparison

    if as_json:
        judged = {} if significance is None else {"significance": significance.as_dict()}
        print(json.dumps({**_document(metrics), **judged}, indent=2))
    else:
        print_comparison(runs, metrics)
        if significance is not None:
            print_significance(significance)
        print(f"Report: {path}")
