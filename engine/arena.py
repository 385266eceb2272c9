"""Operands that no cache holds: views that walk through a block of memory larger than the cache."""

from __future__ import annotations

import math

import torch

PATTERN_ELEMENTS = 2**20
ALIGNMENT_BYTES = 256


class Arena:
    """Random numbers in a block of memory; each view lies behind the one before, and the walk starts over at the end.

    Parameters
    ----------
    size_bytes
        The least size; larger than the last cache, so that a view has left it before its place comes again.
    dtype, device
        Of the views.
    """

    def __init__(self, size_bytes: int, dtype: torch.dtype, device: torch.device) -> None:
        self.dtype = dtype
        count = math.ceil(size_bytes / dtype.itemsize / PATTERN_ELEMENTS)
        generator = torch.Generator(device=device).manual_seed(0)
        pattern = torch.randn(PATTERN_ELEMENTS, generator=generator, device=device).to(dtype)
        self._block = pattern.repeat(max(1, count))
        self._position = 0

    @property
    def elements(self) -> int:
        """Elements of the whole block."""
        return self._block.numel()

    def view(self, *shape: int) -> torch.Tensor:
        """Return the next elements as a contiguous tensor; the block grows if it is smaller than that."""
        count = math.prod(shape)
        if count > self.elements:
            self._block = self._block.repeat(math.ceil(count / self.elements))
        if self._position + count > self.elements:
            self._position = 0
        start = self._position
        step = ALIGNMENT_BYTES // self.dtype.itemsize
        self._position += math.ceil(count / step) * step
        return self._block[start : start + count].view(shape)
