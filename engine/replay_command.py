"""What ``replay`` does: check, serve, measure, print."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from engine.replay import OnProgress, replay
from engine.session import EngineSettings, build_engine, policy_choice
from engine.table import print_metrics
from traces.goodput import parse_goodput
from traces.metrics import measure
from traces.run_record import read_run
from traces.source import open_workload


@dataclass(frozen=True, kw_only=True)
class ReplaySettings:
    """What a person asked of ``replay``; each field is the option of that name."""

    workload: str
    output: Path
    num_prompts: int | None = None
    request_rate: float | None = None
    burstiness: float = 1.0
    speed: float = 1.0
    sort: bool = False
    goodput: Sequence[str] | None = None


def replay_workload(settings: EngineSettings, asked: ReplaySettings, *, as_json: bool = False) -> None:
    """Serve a workload at its arrival times, write the run record and print its metrics.

    Raises
    ------
    InputError
        If anything asked for is wrong; nothing is written then.
    """
    goodput = parse_goodput(list(asked.goodput)) if asked.goodput else None
    choice = policy_choice(settings)
    workload = open_workload(
        asked.workload,
        num_prompts=asked.num_prompts,
        request_rate=asked.request_rate,
        burstiness=asked.burstiness,
        seed=settings.seed,
        sort=asked.sort,
    ).scaled(asked.speed)
    engine = build_engine(settings, choice, longest=int(workload.total_tokens.max()))
    with progress_bar(choice.name, len(workload)) as on_progress:
        replay(engine, choice, workload, asked.output, model=settings.model, on_progress=on_progress)
    metrics = measure(read_run(asked.output), goodput)
    if as_json:
        print(json.dumps(metrics.as_dict(), indent=2))
    else:
        print_metrics(f"{workload.name} under {choice.name}: {settings.model}, measured on {settings.device}", metrics)
        print(f"Run record: {asked.output}")


@contextmanager
def progress_bar(label: str, total: int) -> Iterator[OnProgress]:
    """Show a bar on standard error, where that is a terminal; yield what moves it."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("requests"),
        TimeElapsedColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        task = bars.add_task(label, total=total)
        yield lambda done: bars.update(task, completed=done)
