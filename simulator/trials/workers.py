"""Processes that run trials."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager

from simulator.trials.plan import Answer, Runner, answer
from simulator.trials.trial import Trial

OnAnswer = Callable[[Trial, Answer], None]


def cores() -> int:
    """Return how many processes may compute at once."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def processes(count: int | None = None, on_answer: OnAnswer = lambda _trial, _answer: None) -> Iterator[Runner]:
    """Yield what runs trials in ``count`` processes (by default one a core); ``on_answer`` sees each as it comes."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count or cores(), mp_context=context) as pool:

        def run(trials: Sequence[Trial]) -> list[Answer]:
            futures = {pool.submit(answer, trial): place for place, trial in enumerate(trials)}
            answers: dict[int, Answer] = {}
            for future in as_completed(futures):
                place = futures[future]
                answers[place] = future.result()
                on_answer(trials[place], answers[place])
            return [answers[place] for place in range(len(trials))]

        yield run
