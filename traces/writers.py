"""Writing a workload to a file that this project and other tools read."""

from __future__ import annotations

import gzip
import io
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from traces.errors import InputError
from traces.files import whole_file
from traces.formats import AZURE, CHARIOTEER, MOONCAKE
from traces.workload import Workload

AZURE_MAX_S = 9e9
ROWS = 100_000


def write_workload(path: str | os.PathLike[str], workload: Workload, *, to: str = CHARIOTEER.name) -> None:
    """Write ``workload`` to ``path``, whole or not at all, compressed if ``path`` ends in ``.gz``.

    A link is followed: what it points to is written.

    Parameters
    ----------
    to
        ``charioteer``: CSV with arrival_s (left out for a workload of lengths only), prompt_tokens and
        output_tokens, times at full precision. ``mooncake``: JSONL as Mooncake and vLLM's timed_trace have
        it, times in milliseconds to the nanosecond, the only one that keeps prefix hashes. ``azure``: CSV as
        Azure's, times in ticks of 100 ns from 1970 on, read back relative to the first.

    Raises
    ------
    InputError
        If the file cannot be written, or the format needs arrival times that the workload does not have.
    """
    make = _maker(to)
    if to != CHARIOTEER.name and not workload.timed:
        what = f"{workload.name} has no arrival times, which {to} needs"
        raise InputError(what, where=path, expected="a workload with a request rate")
    if to == AZURE.name and workload.arrival_s[-1] > AZURE_MAX_S:
        raise InputError(f"{workload.name} lasts too long for {to}", where=path, expected="under 285 years")
    with whole_file(path) as temporary, temporary.open("wb") as plain:
        if Path(path).suffix == ".gz":
            with gzip.GzipFile(filename="", fileobj=plain, mode="wb", mtime=0) as packed:
                make(io.BufferedWriter(packed), workload)
        else:
            make(plain, workload)


def natural_format(path: str | os.PathLike[str]) -> str:
    """Return the format that the name of a file suggests: Mooncake's for JSONL, else the project's own."""
    suffixes = [suffix for suffix in Path(path).suffixes if suffix != ".gz"]
    return MOONCAKE.name if suffixes[-1:] == [".jsonl"] else CHARIOTEER.name


def keeps_prefixes(to: str) -> bool:
    """Whether the format ``to`` keeps prefix hashes."""
    return to == MOONCAKE.name


def _maker(to: str) -> Callable[[BinaryIO, Workload], None]:
    makers: dict[str, Callable[[BinaryIO, Workload], None]] = {
        CHARIOTEER.name: _charioteer,
        MOONCAKE.name: _mooncake,
        AZURE.name: _azure,
    }
    if to not in makers:
        raise InputError(f"unknown format {to!r}", expected=f"one of {', '.join(makers)}")
    return makers[to]


def _parts(workload: Workload) -> Iterator[Workload]:
    for start in range(0, len(workload), ROWS):
        yield workload.take(np.arange(start, min(start + ROWS, len(workload))))


def _charioteer(stream: BinaryIO, workload: Workload) -> None:
    lengths = f"{CHARIOTEER.prompt},{CHARIOTEER.output}\n"
    stream.write((f"{CHARIOTEER.time},{lengths}" if workload.timed else lengths).encode())
    for part in _parts(workload):
        columns = [part.prompt_tokens.tolist(), part.output_tokens.tolist()]
        if workload.timed:
            columns.insert(0, part.arrival_s.tolist())
        stream.write(_csv(columns))
    stream.flush()


def _azure(stream: BinaryIO, workload: Workload) -> None:
    stream.write(f"{AZURE.time},{AZURE.prompt},{AZURE.output}\n".encode())
    for part in _parts(workload):
        ticks = np.rint(part.arrival_s * 1e7).astype(np.int64) * 100
        texts = np.datetime_as_string(ticks.astype("datetime64[ns]"))
        times = [text[:-2].replace("T", " ") for text in texts.tolist()]
        stream.write(_csv([times, part.prompt_tokens.tolist(), part.output_tokens.tolist()]))
    stream.flush()


def _csv(columns: list[list[object]]) -> bytes:
    return "".join(",".join(map(str, row)) + "\n" for row in zip(*columns, strict=True)).encode()


def _mooncake(stream: BinaryIO, workload: Workload) -> None:
    for part in _parts(workload):
        times_ms = np.round(part.arrival_s * 1e3, 6).tolist()
        rows = zip(times_ms, part.prompt_tokens.tolist(), part.output_tokens.tolist(), strict=True)
        for index, (time_ms, prompt, output) in enumerate(rows):
            row: dict[str, object] = {
                MOONCAKE.time: int(time_ms) if time_ms.is_integer() else time_ms,
                MOONCAKE.prompt: prompt,
                MOONCAKE.output: output,
            }
            if part.hash_ids is not None:
                row["hash_ids"] = part.hash_ids.of(index).tolist()
            stream.write(json.dumps(row).encode() + b"\n")
    stream.flush()
