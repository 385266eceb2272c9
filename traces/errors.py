"""The one kind of error a user's own input can cause."""

from __future__ import annotations

from os import PathLike


class InputError(ValueError):
    """Something a user handed over is wrong.

    The message is one line and says where, what, and what was expected, in that order. Command lines print
    it after ``error:`` and exit with status 2 (see :mod:`traces.command_line`).

    Parameters
    ----------
    what
        What is wrong, e.g. ``"negative length -4"``.
    where
        The place: a file, ``file:line``, ``file:line, column 'x'``, an option such as ``--policies``.
    expected
        What would have been right, e.g. ``"an integer >= 0"``.
    """

    def __init__(self, what: str, *, where: str | PathLike[str] | None = None, expected: str | None = None) -> None:
        place = f"{where}: " if where is not None else ""
        wish = f"; expected {expected}" if expected is not None else ""
        super().__init__(" ".join(f"{place}{what}{wish}".split()))
