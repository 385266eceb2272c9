"""Processes that run the trials of several candidates while people watch how far each has come."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from simulator.progress import progress_bars
from simulator.trials.candidate import Candidate
from simulator.trials.plan import Answer, Runner
from simulator.trials.trial import Trial
from simulator.trials.workers import processes


@contextmanager
def watched_processes(candidates: Mapping[str, Candidate], total: int, unit: str) -> Iterator[Runner]:
    """Yield what runs trials on all cores and moves a bar of ``total`` trials for each candidate, by label."""
    labels = {candidate: label for label, candidate in candidates.items()}
    done: Counter[str] = Counter()
    with progress_bars(candidates, total, unit) as move:

        def on_answer(trial: Trial, _: Answer) -> None:
            label = labels[trial.candidate]
            done[label] += 1
            move(label, done[label])

        with processes(on_answer=on_answer) as run:
            yield run
