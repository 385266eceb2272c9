"""One run record of a server, with its workload, while it is written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import blake2b
from math import inf
from pathlib import Path
from typing import NamedTuple

import numpy as np

from engine.engine import Engine, Iteration
from engine.recording import completing, ran, run_meta
from engine.replay import deployment_of
from engine.request import Request
from policies.catalog import PolicyChoice
from traces.files import whole_folder
from traces.formats import MOONCAKE
from traces.request_log import ArrivingRequests
from traces.run_log import RunLog
from traces.run_record import META, RunWriter
from traces.workload import HashIds, IntColumn, Workload
from traces.writers import write_workload

WORKLOAD = "workload.jsonl"
HASHED_TOKENS = 16
"""Prompt tokens that a hash of the workload names, whatever the KV blocks: readers know this size."""
NAME_BITS = 53
"""Of a hash: JSON has no longer integers everywhere."""

NO_NAMES: IntColumn = np.empty(0, np.int64)


class Ended(NamedTuple):
    """A request as :class:`traces.request_log.ArrivingRequests` takes it; times from the beginning of its record."""

    request_id: int
    arrival_s: float
    scheduled_s: float
    first_token_s: float
    finished_s: float
    prompt_tokens: int
    output_tokens: int
    generated: int
    cached_tokens: int
    preemptions: int

    @classmethod
    def of(cls, request: Request, start_s: float) -> Ended:
        """Return a request that runs no further, by a clock that began at ``start_s``."""
        sequence = request.sequence
        return cls(
            sequence.request_id,
            sequence.arrival_s - start_s,
            sequence.scheduled_s - start_s,
            sequence.first_token_s - start_s,
            sequence.finished_s - start_s,
            sequence.prompt_tokens,
            sequence.output_tokens,
            len(request.token_ids) - sequence.prompt_tokens,
            sequence.cached_tokens,
            sequence.preemptions,
        )


class NothingServedError(Exception):
    """No request of a record ever ran."""


class Segment:
    """The requests that arrive in a stretch of time under one policy, and the iterations of that stretch.

    Parameters
    ----------
    log
        Of its run record, and of ``requests``.
    start_s
        When the first of its requests arrived, by the engine's clock: its own begins there.
    first_id
        Of its requests: those that arrive after it have ascending ids without a gap.
    salt
        For :func:`prefix_names`.
    """

    def __init__(self, log: RunLog, requests: ArrivingRequests, *, start_s: float, first_id: int, salt: bytes) -> None:
        self._first_id = first_id
        self._log, self._requests, self._start_s, self._salt = log, requests, start_s, salt
        self._end_id: float = inf
        self._hashes: dict[int, IntColumn] = {}

    @property
    def over(self) -> bool:
        """Whether it takes no more iterations, and no requests that arrive."""
        return self._end_id < inf

    @property
    def complete(self) -> bool:
        """Whether all of its requests have ended, and no more of them come."""
        return self._log.finished == self._end_id - self._first_id

    def owns(self, request: Request) -> bool:
        """Whether a request is its own: one that arrived in it."""
        return self._first_id <= request.request_id < self._end_id

    def ran(self, iteration: Iteration) -> None:
        """Take an iteration."""
        self._log.iterations(ran(iteration, self._start_s))

    def ended(self, request: Request) -> None:
        """Take one of its requests that runs no further."""
        self._log.ended((Ended.of(request, self._start_s),))
        hashes = request.sequence.block_hashes
        if hashes:
            self._hashes[request.request_id] = prefix_names(hashes, self._salt)

    def end(self, next_id: int) -> None:
        """Take no more iterations, and no requests from ``next_id`` on."""
        self._end_id = next_id

    def workload(self, name: str, block_size: int) -> Workload:
        """Return its requests with the output that they really got, for which the log is closed; those never scheduled
        cost nothing and are left out, those that left before their first token count with one.

        Raises
        ------
        NothingServedError
            If none was scheduled.
        """
        columns = self._requests.made()
        rows = np.flatnonzero(~np.isnan(columns["scheduled_s"]))
        if not len(rows):
            raise NothingServedError
        ids = self._requests.ids()[rows].tolist()
        return Workload(
            name=name,
            arrival_s=columns["arrival_s"][rows],
            prompt_tokens=columns["prompt_tokens"][rows],
            output_tokens=np.maximum(columns["generated_tokens"][rows], 1),
            hash_ids=self._hash_ids(ids, columns["prompt_tokens"][rows].tolist(), block_size),
        )

    def _hash_ids(self, ids: Sequence[int], prompts: Sequence[int], block_size: int) -> HashIds | None:
        if not self._hashes:
            return None
        most = max(1, block_size // HASHED_TOKENS)
        names = [self._hashes.get(each, NO_NAMES) for each in ids]
        ends = [prefix_names(range(most * each, most * (each + 1)), self._salt) for each in ids]
        return _hash_ids(names, ends, prompts, block_size)


def prefix_names(hashes: Iterable[int | bytes], salt: bytes) -> IntColumn:
    """Return a number for each block of a prompt, equal where block and all before it are equal, int64 [blocks].

    Whoever does not know ``salt`` cannot find out by trying what is in them.
    """
    made = [blake2b(str(each).encode(), digest_size=8, key=salt).digest() for each in hashes]
    return (np.frombuffer(b"".join(made), "<u8") >> np.uint64(64 - NAME_BITS)).astype(np.int64)


def _hash_ids(
    names: Sequence[IntColumn], ends: Sequence[IntColumn], prompts: Sequence[int], block_size: int
) -> HashIds | None:
    """Return names of prompt blocks as readers expect them, one also for the last, which the prompt does not fill and
    nobody shares: from ``ends``. None where no prompt has any, or sizes do not fit."""
    if not any(map(len, names)) or (HASHED_TOKENS % block_size and block_size % HASHED_TOKENS):
        return None
    given = _ragged(names, block_size)
    values = []
    for index, (each, end, prompt) in enumerate(zip(names, ends, prompts, strict=True)):
        full = given.of_blocks(index, len(each) * block_size, HASHED_TOKENS)
        values.append(np.append(full, end[: -(-prompt // HASHED_TOKENS) - len(full)]))
    return _ragged(values, HASHED_TOKENS)


def _ragged(values: Sequence[IntColumn], block_size: int) -> HashIds:
    offsets = np.concatenate([[0], np.cumsum([len(each) for each in values])]).astype(np.int64)
    return HashIds(offsets=offsets, values=np.concatenate(values), block_size=block_size)


@contextmanager
def segment(
    path: Path, engine: Engine, choice: PolicyChoice, *, model: str, start_s: float, first_id: int, salt: bytes
) -> Iterator[Segment]:
    """Yield a record of what ``engine`` serves under ``choice``; it is in the folder ``path``, whole, when the block
    ends well, and not at all otherwise.

    Raises
    ------
    InputError, OSError
        If it cannot be written.
    NothingServedError
        At the end, if there is nothing to write.
    """
    deployment = deployment_of(engine.runner, [choice], model)
    name = f"recorded from {datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    with whole_folder(path, marker=META) as folder:
        with RunWriter(folder) as writer:
            requests = ArrivingRequests()
            log = RunLog(writer, requests, completing(deployment))
            made = Segment(log, requests, start_s=start_s, first_id=first_id, salt=salt)
            yield made
            log.close()
            workload = made.workload(name, deployment.block_size)
            writer.meta(run_meta(engine, choice, workload, deployment))
        write_workload(folder / WORKLOAD, workload, to=MOONCAKE.name)
