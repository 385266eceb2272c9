"""What ``search`` does: check, search with a journal, predict, report."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from simulator.search.documents import cluster_document, policy_choice, search_document
from simulator.search.explanation import explain
from simulator.search.fingerprint import fingerprint
from simulator.search.journal import Journal
from simulator.search.journalled import Journalled
from simulator.search.progress import search_progress
from simulator.search.request import Prepared, Request, prepare
from simulator.search.search import Found, search
from simulator.search.table import print_search
from simulator.session import command_line
from simulator.trials.crew import Crew, carry_out_rounds
from simulator.trials.workers import processes
from traces.command_line import Stopped
from traces.errors import InputError
from traces.files import write_json

JOURNAL, RESULT, REPORT = "journal.jsonl", "search.json", "report.html"
POLICY, DEPLOYMENT, CLUSTER = "policy.json", "deployment.json", "cluster.json"
NOT_FOUND_BY = ("output", "workers", "ray")
"""Options that do not show in what is found."""


def run_search(request: Request, *, as_json: bool = False) -> Found:
    """Search what was asked for, write what was found to ``request.output``, and print it.

    Where the folder holds a journal of the same search, that goes on from there.

    Raises
    ------
    InputError
        If anything asked for is wrong, or nothing meets what is asked for. The journal stays.
    """
    prepared = prepare(request)
    _check_folder(request.output)
    with Journal.open(request.output / JOURNAL, fingerprint(prepared.task)) as journal:
        found = _carry_out(request, prepared, journal)
        document = _write(request, prepared, found)
    if as_json:
        print(json.dumps(document, indent=2))
    else:
        print_search(prepared.task, prepared.selection, found, document["why"])
        print(f"Report: {request.output / REPORT}\nTo deploy: {request.output / POLICY}")
    return found


def _carry_out(request: Request, prepared: Prepared, journal: Journal) -> Found:
    try:
        with _crew(request) as crew, search_progress(prepared.task, journal.resumed) as watch:
            return carry_out_rounds(
                watch.over(search(prepared.task)), Journalled(crew, journal, watch.simulated), watch.estimated
            )
    except Stopped as stop:
        kept = f"{len(journal):,} simulations are kept in {request.output / JOURNAL}"
        stop.says = f"{kept}; the same command goes on from there"
        raise


@contextmanager
def _crew(request: Request) -> Iterator[Crew]:
    if request.ray is None:
        with processes(request.workers) as pool:
            yield pool
        return
    from simulator.trials.ray_workers import ray_tasks

    with ray_tasks(request.ray, request.workers) as crew:
        yield crew


def _check_folder(folder: Path) -> None:
    """Raise :class:`InputError` unless a folder is new, empty, or one that a search began."""
    if folder.is_dir() and (names := sorted(entry.name for entry in folder.iterdir())) and JOURNAL not in names:
        raise InputError(f"holds {names[0]!r}, and no {JOURNAL}", where=folder, expected="a folder of its own")


def _write(request: Request, prepared: Prepared, found: Found) -> dict[str, Any]:
    from simulator.search.report import write_report

    task, folder = prepared.task, request.output
    command = command_line("search", request, without=NOT_FOUND_BY)
    sentences = explain(task, found)
    winner = task.candidates[found.winner]
    document = search_document(task, prepared.selection, found, sentences, command)
    write_json(folder / POLICY, policy_choice(task, found, " ".join(sentences), command).as_dict())
    write_json(folder / DEPLOYMENT, winner.deployments()[0].to_json())
    cluster = cluster_document(winner.cluster)
    if cluster is None:
        (folder / CLUSTER).unlink(missing_ok=True)
    else:
        write_json(folder / CLUSTER, cluster)
    write_report(folder / REPORT, task, prepared.selection, found, sentences, command)
    write_json(folder / RESULT, document)
    return document
