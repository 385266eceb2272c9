"""Devices and machines that are out of memory, whatever their allocator raises."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from traces.errors import InputError

WORDS = ("out of memory", "can't allocate memory", "not enough memory", "cannot allocate memory")


def is_shortage(error: BaseException) -> bool:
    """Return whether ``error`` says that memory ran out."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in WORDS)


def first_line(error: BaseException) -> str:
    """Return the first line of what ``error`` says, or its name."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@contextmanager
def memory_for(what: str, *, expected: str) -> Iterator[None]:
    """Raise InputError, "no memory is left for ``what``", where the block runs out of it."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if is_shortage(error):
            raise InputError(f"no memory is left for {what}", expected=expected) from error
        raise
