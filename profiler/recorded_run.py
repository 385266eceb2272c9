"""A recorded run as a calibration reads it: what each iteration held, and what it took."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np

from policies.arrivals import Arrivals
from policies.batch import Batch
from policies.blocks import KVMemory
from policies.catalog import parse_choice
from policies.rerun import COMPARED, follow, held
from profiler.aggregates import Aggregates, BatchLike, Slice
from profiler.deployment import Deployment
from profiler.device import load_device
from profiler.tile import Floats
from traces.errors import InputError
from traces.run_columns import RequestColumns, RunMeta, RunRecord
from traces.run_record import FILES, META, read_run
from traces.settings import from_mapping
from traces.workload import FloatColumn, Workload

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
        Iterations with several chunks that did not hold what the policy makes of the requests.
    """

    where: Path
    deployment: Deployment
    batches: Sequence[BatchLike]
    time_s: Floats
    left_out: int


def read_recorded(path: str | PathLike[str]) -> RecordedRun:
    """Read a run record and run its policy again by its clock, which gives the batches back.

    Iterations are kept where the batch has the counts that the record states; and where there is one chunk at most, so
    that the record says all itself. It has to: what was served live was aborted, or found in the prefix cache, or was
    on its way to the scheduler when an iteration began, and no policy run again knows of that.

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
    batches = _batches(run, deployment, folder)
    time_s = run.iterations.busy_s
    kept = [row for row, batch in enumerate(batches) if batch is not None and time_s[row] > 0]
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


def _batches(run: RunRecord, deployment: Deployment, folder: Path) -> list[BatchLike | None]:
    """Return what each iteration held; None where that cannot be told."""
    followed = max(_followed(run, deployment, folder), key=lambda each: sum(batch is not None for batch in each))
    return [whole if whole is not None else alone for whole, alone in zip(followed, _alone(run), strict=True)]


def _alone(run: RunRecord) -> list[BatchLike | None]:
    """Return the iterations with one chunk at most, which their counts describe."""
    rows = np.stack([getattr(run.iterations, name) for name in COMPARED], axis=1).tolist()
    return [
        Aggregates(
            chunks=(Slice(tokens, past),) if chunks else (),
            decodes=decodes,
            outputs=outputs,
            decode_context_sum=context_sum,
            decode_context_max=context_max,
        )
        if chunks < 2
        else None
        for tokens, chunks, decodes, outputs, context_sum, context_max, past in rows
    ]


def _followed(run: RunRecord, deployment: Deployment, folder: Path) -> Iterator[list[Batch | None]]:
    """Yield the batches that the run's policy makes of its requests, by the run's own clock; None where they are not
    what the record states. First they come when they came, then when they were first scheduled: not before either was
    what came over a network in the scheduler's hands."""
    settings = {key: value for key, value in run.meta.policy.items() if key != "name"}
    choice = parse_choice(str(run.meta.policy.get("name")), settings, where=f"{folder / META}, policy")
    limit = deployment.context_limit
    memory = KVMemory(blocks=run.meta.kv_blocks, block_size=run.meta.block_size, max_model_len=limit)
    for come_s in (run.requests.arrival_s, run.requests.scheduled_s):
        arrivals = Arrivals(_served(run.requests, come_s, str(folder)), memory.block_size)
        batches = follow(choice.build(memory), arrivals, run.iterations)
        yield [batch if same else None for batch, same in zip(batches, _same(run, batches), strict=True)]


def _served(requests: RequestColumns, come_s: FloatColumn, name: str) -> Workload:
    """Return the requests that got a token, with the tokens that they got, as if each had come at ``come_s``."""
    served = np.flatnonzero(requests.generated_tokens)
    order = served[np.argsort(come_s[served], kind="stable")]
    return Workload(
        name=name,
        arrival_s=come_s[order],
        prompt_tokens=requests.prompt_tokens[order],
        output_tokens=requests.generated_tokens[order],
    )


def _check_single(meta: RunMeta, folder: Path) -> None:
    for count, name in ((meta.replicas, "replicas"), (meta.stages, "pipeline stages")):
        if count != 1:
            raise InputError(f"{count} {name}", where=folder / META, expected="a run of one, whose iterations follow")


def _same(run: RunRecord, batches: Sequence[Batch | None]) -> list[bool]:
    rows = np.stack([getattr(run.iterations, name) for name in COMPARED], axis=1).tolist()
    return [batch is not None and held(batch) == row for batch, row in zip(batches, rows, strict=True)]
