"""Uniform random integers from a seed."""

from __future__ import annotations

CHUNK = 1024
"""Random numbers drawn at a time."""


class RandomDraws:
    """Uniform random integers, drawn many at a time from numpy's generator of ``seed``."""

    def __init__(self, seed: int) -> None:
        from numpy.random import default_rng

        self._rng = default_rng(seed)
        self._drawn: list[float] = []

    def below(self, count: int) -> int:
        """Return one of 0 ... ``count`` - 1."""
        if not self._drawn:
            self._drawn = self._rng.random(CHUNK)[::-1].tolist()
        return int(self._drawn.pop() * count)
