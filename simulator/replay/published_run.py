"""The folder of a published run: what was asked of a real engine, and what it did."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from simulator.replay.summary import Summary, read_summary
from traces.errors import InputError
from traces.files import read_json
from traces.workload import FloatColumn, IntColumn, Workload

REQUEST_KEYS = {
    "input_toks": "prompt_tokens",
    "output_toks": "output_tokens",
    "arrival_time": "arrival_s",
    "queued_ts": "queued_s",
    "scheduled_ts": "scheduled_s",
    "first_token_ts": "first_token_s",
    "last_token_ts": "last_token_s",
}
"""The keys of ``requests.jsonl`` and the columns they become; others are left alone."""
SECONDS_COLUMNS = ("t", "prompt_throughput", "gen_throughput", "running", "waiting", "kv_cache_pct")


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """What became of the requests, in order of arrival, each column [requests].

    ``arrival_s`` is on the clock of the client, the others on that of the engine; seconds both.
    """

    prompt_tokens: IntColumn
    output_tokens: IntColumn
    arrival_s: FloatColumn
    queued_s: FloatColumn
    scheduled_s: FloatColumn
    first_token_s: FloatColumn
    last_token_s: FloatColumn


@dataclass(frozen=True, kw_only=True, eq=False)
class PublishedRun:
    """A published run.

    Attributes
    ----------
    folder
        Where it lies.
    meta
        ``vllm/meta.json``.
    model, hardware
        Names as ``config.json`` gives them.
    requests
        What became of each request.
    seconds
        Columns of ``vllm/timeseries.csv`` by name, float64 [seconds]; empty where there is none.
    summary
        The error that another simulator reached; None where there is none.
    start_s
        When the first second of ``seconds`` began, before the first arrival.
    """

    folder: Path
    meta: Mapping[str, Any]
    model: str
    hardware: str
    requests: Measured
    seconds: Mapping[str, FloatColumn]
    summary: Summary | None
    start_s: float

    def workload(self) -> Workload:
        """Return the requests with their real lengths and arrival times, the first at 0."""
        requests = self.requests
        return Workload(
            name=f"{self.folder.parent.name}/{self.folder.name}",
            arrival_s=requests.arrival_s - requests.arrival_s[0],
            prompt_tokens=requests.prompt_tokens,
            output_tokens=requests.output_tokens,
        )


def read_published_run(folder: Path) -> PublishedRun:
    """Read ``config.json``, ``vllm/`` and ``validation/summary.txt``; the last and the time series may be missing.

    Raises
    ------
    InputError
        If ``folder`` is none, or a file of it is missing or broken, with file and line.
    """
    if not folder.is_dir():
        raise InputError("no such folder", where=folder, expected="the folder of a published run")
    config, meta = read_json(folder / "config.json"), read_json(folder / "vllm" / "meta.json")
    model, hardware = _names(config, folder / "config.json")
    requests = _requests(folder / "vllm" / "requests.jsonl")
    return PublishedRun(
        folder=folder.resolve(),
        meta=meta,
        model=model,
        hardware=hardware,
        requests=requests,
        seconds=_seconds(folder / "vllm" / "timeseries.csv"),
        summary=read_summary(folder / "validation" / "summary.txt"),
        start_s=_start(meta, float(requests.arrival_s[0]), folder / "vllm" / "meta.json"),
    )


def _names(config: Mapping[str, Any], where: Path) -> tuple[str, str]:
    try:
        (node,) = config["nodes"]
        (instance,) = node["instances"]
        names = instance["model_name"], instance["hardware"]
    except (KeyError, TypeError, ValueError) as error:
        wish = "nodes with one node, its instances with one, that with model_name and hardware"
        raise InputError("does not describe one instance", where=where, expected=wish) from error
    if not all(isinstance(name, str) and name for name in names):
        raise InputError("model_name or hardware is no name", where=where, expected="text")
    return names


def _requests(path: Path) -> Measured:
    rows = [_request(line, f"{path}:{number}") for number, line in enumerate(_lines(path), 1) if line.strip()]
    if not rows:
        raise InputError("holds no request", where=path)
    order = np.argsort([row["arrival_s"] for row in rows], kind="stable")

    def column(name: str) -> FloatColumn:
        return np.asarray([row[name] for row in rows], dtype=np.float64)[order]

    return Measured(
        prompt_tokens=column("prompt_tokens").astype(np.int64),
        output_tokens=column("output_tokens").astype(np.int64),
        arrival_s=column("arrival_s"),
        queued_s=column("queued_s"),
        scheduled_s=column("scheduled_s"),
        first_token_s=column("first_token_s"),
        last_token_s=column("last_token_s"),
    )


def _request(line: str, where: str) -> dict[str, float]:
    try:
        document = json.loads(line)
    except ValueError as error:
        raise InputError("not JSON", where=where, expected="one object a line") from error
    row: dict[str, float] = {}
    for key, name in REQUEST_KEYS.items():
        value = document.get(key) if isinstance(document, dict) else None
        if key == "scheduled_ts" and value is None and isinstance(document, dict):
            value = document.get("first_token_ts")
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise InputError(f"{key} is {value!r}", where=where, expected="a number")
        if key.endswith("_toks") and (value != int(value) or value < 1):
            raise InputError(f"{key} is {value!r}", where=where, expected="an integer >= 1")
        row[name] = value
    if not row["queued_s"] <= row["scheduled_s"] <= row["first_token_s"] <= row["last_token_s"]:
        wish = "queued_ts <= scheduled_ts <= first_token_ts <= last_token_ts"
        raise InputError("times run backwards", where=where, expected=wish)
    return row


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise InputError(f"cannot read: {error.strerror}", where=path) from error
    except UnicodeDecodeError as error:
        raise InputError("not UTF-8 text", where=path) from error


def _seconds(path: Path) -> dict[str, FloatColumn]:
    if not path.is_file():
        return {}
    reader = csv.DictReader(_lines(path))
    missing = [name for name in SECONDS_COLUMNS if name not in (reader.fieldnames or ())]
    if missing:
        raise InputError(f"column {missing[0]!r} is missing", where=path, expected=", ".join(SECONDS_COLUMNS))
    rows = [
        [_number(row[name], name, path, number) for name in SECONDS_COLUMNS] for number, row in enumerate(reader, 2)
    ]
    columns = np.asarray(rows, dtype=np.float64).reshape(-1, len(SECONDS_COLUMNS))
    return {name: columns[:, index] for index, name in enumerate(SECONDS_COLUMNS)}


def _number(text: str | None, name: str, path: Path, line: int) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{name} is {text!r}", where=f"{path}:{line}", expected="a number")
    return value


def _start(meta: Mapping[str, Any], first_s: float, where: Path) -> float:
    text = meta.get("started_at")
    if text is None:
        return first_s
    try:
        started = datetime.fromisoformat(str(text).replace("Z", "+00:00")).timestamp()
    except ValueError as error:
        raise InputError(f"started_at is {text!r}", where=where, expected="a date and time") from error
    return min(started, first_s)
