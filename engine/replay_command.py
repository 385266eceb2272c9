"""What ``replay`` does: check, serve, measure, print."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.progress import progress_bar
from engine.replay import replay
from engine.session import EngineSettings, build_engine, policy_choice
from engine.table import print_metrics
from traces.files import whole_folder
from traces.goodput import parse_goodput
from traces.metrics import measure
from traces.run_record import FILES, META, read_run
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
    with whole_folder(asked.output, marker=META, is_ours=lambda entry: entry.name in FILES) as folder:
        engine = build_engine(settings, choice, longest=int(workload.total_tokens.max()))
        with progress_bar("requests", len(workload), label=choice.name) as on_progress:
            replay(engine, choice, workload, folder, model=settings.model, on_progress=on_progress)
    metrics = measure(read_run(asked.output), goodput)
    if as_json:
        print(json.dumps(metrics.as_dict(), indent=2))
    else:
        print_metrics(f"{workload.name} under {choice.name}: {settings.model}, measured on {settings.device}", metrics)
        print(f"Run record: {asked.output}")
