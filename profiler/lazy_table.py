"""A function of one integer, tabulated as it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

Entry = TypeVar("Entry")


class LazyTable(dict[int, Entry]):
    """A table whose entries are made when first read; reading one again costs a look-up and no call.

    Parameters
    ----------
    make
        Returns the entry of a key.
    """

    __slots__ = ("_make",)

    def __init__(self, make: Callable[[int], Entry]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, key: int) -> Entry:
        entry = self[key] = self._make(key)
        return entry
