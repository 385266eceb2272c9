"""Timing single calls: by a clock on a CPU, by events on a GPU."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch

CALLS_AHEAD = 16
"""Calls that are queued behind one flush: the processor is done queueing before the GPU is done flushing."""


def cpu_seconds(run: Callable[[], object], repeats: int) -> Sequence[float]:
    """Return the seconds of each of ``repeats`` calls.

    Where one thread computes it is the time that this thread ran, so that other programs on the machine do
    not count; where several do it is the time that passed.
    """
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    seconds = []
    for _ in range(repeats):
        start = clock()
        run()
        seconds.append(clock() - start)
    return seconds


class CudaStopwatch:
    """Times kernels between two events, behind a copy that keeps the GPU busy meanwhile.

    The copy has two purposes: it fills the L2 with other data, and while it runs the calls behind it are
    queued, so that no gap of launching them lies between the events.

    Parameters
    ----------
    flush_bytes
        Size of the copy; several times the L2, and long enough to queue :data:`CALLS_AHEAD` calls.
    """

    def __init__(self, flush_bytes: int, device: torch.device) -> None:
        self._source = torch.zeros(flush_bytes, dtype=torch.uint8, device=device)
        self._target = torch.empty_like(self._source)

    def seconds(self, run: Callable[[], object], repeats: int) -> Sequence[float]:
        """Return the seconds of each of ``repeats`` calls."""
        seconds: list[float] = []
        while len(seconds) < repeats:
            seconds += self._group(run, min(CALLS_AHEAD, repeats - len(seconds)))
        return seconds

    def _group(self, run: Callable[[], object], calls: int) -> list[float]:
        events = [torch.Event("cuda", enable_timing=True) for _ in range(2 * calls)]
        self._target.copy_(self._source)
        for call in range(calls):
            events[2 * call].record()
            run()
            events[2 * call + 1].record()
        torch.cuda.synchronize()
        return [1e-3 * events[2 * call].elapsed_time(events[2 * call + 1]) for call in range(calls)]
