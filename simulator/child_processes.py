"""Processes that a process starts: they begin with signals held back, and compute on one thread."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker

from traces.held_signals import STOPPING, signals_held

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


@contextmanager
def signals_masked() -> Iterator[None]:
    """Hold signals back until a process has started and is known, so that none is left behind.

    The mask is for the process, which inherits it: its parent is the one to end it. (The tracker that comes with
    the first process would let signals through; so it starts before.) The handlers are for this process, where
    another thread may take the signal.
    """
    resource_tracker.ensure_running()
    with signals_held():
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let the processes that start in the block compute on one thread each: there is one a core already."""
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(ONE_THREAD)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
