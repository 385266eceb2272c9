"""What ``bench throughput`` and ``bench latency`` do: check, serve, print."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from engine import hardware
from engine.bench_latency import LatencySettings, measure_latency
from engine.bench_measure import measure_throughput
from engine.bench_table import print_latency, print_throughput
from engine.bench_workload import BenchWorkload
from engine.engine import Engine
from engine.replay import OnProgress
from engine.session import EngineSettings, build_engine, policy_choice
from traces.files import write_json
from traces.goodput import parse_goodput


def bench_throughput(
    settings: EngineSettings,
    asked: BenchWorkload,
    *,
    goodput: Sequence[str] | None = None,
    output: Path | None = None,
    as_json: bool = False,
) -> None:
    """Serve all requests at once and print what came out; write it to ``output`` if there is one.

    Raises
    ------
    InputError
        If anything asked for is wrong; nothing is written then.
    """
    rule = parse_goodput(list(goodput)) if goodput else None
    choice = policy_choice(settings)
    workload = asked.open(settings.seed)
    engine = build_engine(settings, choice, longest=int(workload.total_tokens.max()))
    with _bar("requests", len(workload)) as on_progress:
        result = measure_throughput(engine, workload, goodput=rule, on_progress=on_progress)
    document = {"dataset": workload.name, **_facts(engine, settings), **result.as_dict()}
    if not as_json:
        print_throughput(f"{workload.name}, {_title(engine, settings)}", result)
    _hand_out(document, output, as_json)


def bench_latency(
    settings: EngineSettings, asked: LatencySettings, *, output: Path | None = None, as_json: bool = False
) -> None:
    """Serve one batch again and again and print how long it takes; write it to ``output`` if there is one.

    Raises
    ------
    InputError
        If anything asked for is wrong; nothing is written then.
    """
    engine = build_engine(settings, policy_choice(settings), longest=asked.input_len + asked.output_len)
    with _bar("batches", asked.num_iters_warmup + asked.num_iters) as on_progress:
        result = measure_latency(engine, asked, on_progress=on_progress)
    batch = {name: getattr(asked, name) for name in ("batch_size", "input_len", "output_len")}
    if not as_json:
        shape = f"{asked.batch_size} x {asked.input_len}/{asked.output_len} tokens"
        print_latency(f"{shape}, {_title(engine, settings)}", result)
    _hand_out({**batch, **_facts(engine, settings), **result.as_dict()}, output, as_json)


def _title(engine: Engine, settings: EngineSettings) -> str:
    facts = _facts(engine, settings)
    return f"{settings.model} ({facts['dtype']}) under {engine.policy.name} on {facts['device']}"


def _facts(engine: Engine, settings: EngineSettings) -> dict[str, Any]:
    """Return what ran, on what."""
    runner = engine.runner
    on_cpu = runner.device.type == "cpu"
    name = f"{hardware.cpu_name()}, threads: {torch.get_num_threads()}" if on_cpu else _gpu_name(runner.device)
    return {
        "model": settings.model,
        "dtype": str(runner.cache.layout.dtype).removeprefix("torch."),
        "policy": engine.policy.name,
        "attention": runner.backend.name,
        "device": name,
        "seed": engine.seed,
        "versions": {**hardware.versions(), "transformers": version("transformers"), "charioteer": _own_version()},
    }


def _gpu_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device)


def _own_version() -> str:
    try:
        return version("charioteer")
    except PackageNotFoundError:
        return "not installed"


def _hand_out(document: Mapping[str, Any], output: Path | None, as_json: bool) -> None:
    if output is not None:
        write_json(output, document)
    if as_json:
        print(json.dumps(document, indent=2))
    elif output is not None:
        print(f"Written: {output}")


@contextmanager
def _bar(unit: str, total: int) -> Iterator[OnProgress]:
    """Show a bar on standard error, where that is a terminal; yield what moves it."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn(unit), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        task = bars.add_task("", total=total)
        yield lambda done: bars.update(task, completed=done)
