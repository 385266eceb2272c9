"""What the server's processes hold in memory, second by second."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from time import perf_counter

from bench.serving.server import resident_bytes

EVERY_S = 1.0
MIB = 1 << 20


class Memory:
    """Samples of the resident memory of some processes.

    Parameters
    ----------
    pids
        By name.
    """

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = pids
        self._times_s: list[float] = []
        self._bytes: dict[str, list[int]] = {name: [] for name in pids}

    async def watch(self) -> None:
        """Sample until cancelled, or a process ends."""
        with suppress(FileNotFoundError):
            while True:
                self._times_s.append(perf_counter())
                for name, pid in self._pids.items():
                    self._bytes[name].append(resident_bytes(pid))
                await asyncio.sleep(EVERY_S)

    def mib(self, name: str) -> tuple[float, float, float]:
        """Return MiB at the beginning, in the middle and at the end."""
        samples = self._bytes[name]
        return samples[0] / MIB, samples[len(samples) // 2] / MIB, samples[-1] / MIB

    def growth_mib(self, name: str) -> float:
        """Return by how much it grew in the second half: its length times the median slope of all pairs of samples
        (Theil and Sen), which single steps do not move."""
        from scipy.stats import theilslopes

        half = len(self._bytes[name]) // 2
        later = self._bytes[name][half:]
        if len(later) < 2:
            return 0.0
        times_s = self._times_s[half : half + len(later)]
        return float(theilslopes(later, times_s)[0]) * (times_s[-1] - times_s[0]) / MIB
