"""A recorded run as a calibration reads it: what each iteration held, and what it took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np

from policies.arrivals import Arrivals
from policies.batch import Batch
from policies.blocks import KVMemory
from policies.catalog import parse_choice
from policies.rerun import COMPARED, follow, held
from profiler.deployment import Deployment
from profiler.device import load_device
from profiler.tile import Floats
from traces.errors import InputError
from traces.run_columns import RunMeta, RunRecord
from traces.run_record import FILES, META, read_run
from traces.settings import from_mapping
from traces.workload import Workload

FEWEST_ITERATIONS = 50
LEAST_SAME = 0.5
"""Of the iterations: if fewer hold what the policy makes of the requests, it is not the policy that ran."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RecordedRun:
    """Iterations of one replica with one stage.

    Attributes
    ----------
    where
        The folder, for messages.
    deployment
        What ran where.
    batches
        What each iteration held.
    time_s
        What it took, float64 [iterations].
    left_out
        Iterations that did not hold what the policy makes of the requests.
    """

    where: Path
    deployment: Deployment
    batches: Sequence[Batch]
    time_s: Floats
    left_out: int


def read_recorded(path: str | PathLike[str]) -> RecordedRun:
    """Read a run record and run its policy again by its clock, which gives the batches back.

    Iterations are kept where the batch has the counts that the record states.

    Raises
    ------
    InputError
        If ``path`` is no run record with iterations; it has several replicas or stages; model, device or policy are
        not known here; or too few iterations are as the policy makes them.
    """
    folder = Path(path)
    for name in FILES:
        if not (folder / name).is_file():
            wish = f"a run record ({', '.join(FILES)}), as `engine replay` writes it; a list of requests is not enough"
            raise InputError(f"holds no {name}", where=folder, expected=wish)
    run = read_run(folder)
    _check_single(run.meta, folder)
    deployment = from_mapping(Deployment, run.meta.groups[0].deployment, where=f"{folder / META}, deployment")
    load_device(deployment.device)
    batches = _followed(run, deployment, folder)
    same = _same(run, batches)
    time_s = run.iterations.busy_s
    kept = [row for row, batch in enumerate(batches) if same[row] and batch is not None and time_s[row] > 0]
    if len(kept) < max(FEWEST_ITERATIONS, LEAST_SAME * len(batches)):
        name = str(run.meta.policy.get("name"))
        what = f"{len(kept)} of {len(batches)} iterations hold what {name} with these settings makes of the requests"
        wish = f"at least {FEWEST_ITERATIONS}, and half of them"
        raise InputError(what, where=folder, expected=wish)
    return RecordedRun(
        where=folder,
        deployment=deployment,
        batches=[batch for row in kept if (batch := batches[row]) is not None],
        time_s=np.asarray(time_s[kept], dtype=np.float64),
        left_out=len(batches) - len(kept),
    )


def _followed(run: RunRecord, deployment: Deployment, folder: Path) -> list[Batch | None]:
    """Return the batches that the run's policy makes of its requests, by the run's own clock."""
    settings = {key: value for key, value in run.meta.policy.items() if key != "name"}
    choice = parse_choice(str(run.meta.policy.get("name")), settings, where=f"{folder / META}, policy")
    limit = deployment.context_limit
    memory = KVMemory(blocks=run.meta.kv_blocks, block_size=run.meta.block_size, max_model_len=limit)
    requests = run.requests
    workload = Workload(
        name=str(folder),
        arrival_s=requests.arrival_s,
        prompt_tokens=requests.prompt_tokens,
        output_tokens=requests.output_tokens,
    )
    return follow(choice.build(memory), Arrivals(workload, memory.block_size), run.iterations)


def _check_single(meta: RunMeta, folder: Path) -> None:
    for count, name in ((meta.replicas, "replicas"), (meta.stages, "pipeline stages")):
        if count != 1:
            raise InputError(f"{count} {name}", where=folder / META, expected="a run of one, whose iterations follow")


def _same(run: RunRecord, batches: Sequence[Batch | None]) -> list[bool]:
    rows = np.stack([getattr(run.iterations, name) for name in COMPARED], axis=1).tolist()
    return [batch is not None and held(batch) == row for batch, row in zip(batches, rows, strict=True)]
