"""Operands that no cache holds: views that walk through a block of memory larger than the cache."""

from __future__ import annotations

import math

import torch

PATTERN_ELEMENTS = 2**20
ALIGNMENT_BYTES = 256


class Arena:
    """Random numbers in a block of memory; views lie one behind the other until the walk starts over.

    Parameters
    ----------
    size_bytes
        Bytes that are walked through, at least, before a place comes again; more than the last cache holds.
    dtype, device
        Of the views.
    """

    def __init__(self, size_bytes: int, dtype: torch.dtype, device: torch.device) -> None:
        self.dtype = dtype
        generator = torch.Generator(device=device).manual_seed(0)
        self._pattern = torch.randn(PATTERN_ELEMENTS, generator=generator, device=device).to(dtype)
        self._walk = size_bytes // dtype.itemsize
        self._block = self._pattern
        self._position = 0

    @property
    def elements(self) -> int:
        """Elements of the whole block."""
        return self._block.numel()

    def view(self, *shape: int) -> torch.Tensor:
        """Return the next elements as a contiguous tensor; the block grows to hold the walk and one view."""
        count = math.prod(shape)
        if self._walk + count > self.elements:
            del self._block
            self._block = self._pattern.repeat(math.ceil((self._walk + count) / PATTERN_ELEMENTS))
        if self._position + count > self.elements:
            self._position = 0
        start = self._position
        step = ALIGNMENT_BYTES // self.dtype.itemsize
        self._position += math.ceil(count / step) * step
        return self._block[start : start + count].view(shape)
