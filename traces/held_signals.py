"""Stretches in which the process is not to be stopped."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

STOPPING = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def signals_held() -> Iterator[None]:
    """Hold back what would stop the process while the block runs; then it happens.

    Python handles signals in its main thread, so that in any other there is nothing to hold back.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    seen: list[int] = []
    handlers = [signal.signal(number, lambda taken, _: seen.append(taken)) for number in STOPPING]
    try:
        yield
    finally:
        for number, handler in zip(STOPPING, handlers, strict=True):
            signal.signal(number, handler)
        for taken in dict.fromkeys(seen):
            signal.raise_signal(taken)
