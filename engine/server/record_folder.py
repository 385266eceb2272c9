"""The folder under which a server's run records are written, one after the other."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from pathlib import Path

from traces.errors import InputError

NUMBERED = re.compile(r"[0-9]{4,}")
UNFINISHED = re.compile(r"\.+[0-9]{4,}\.[0-9].*")
"""What :func:`traces.files.whole_folder` calls a record that is being written."""


class RecordFolder:
    """A folder with the records ``0001``, ``0002`` and so on, to which one server at a time adds more.

    What a server that was killed left unfinished goes. Whatever else is there stays.

    Parameters
    ----------
    path
        Made where there is none.

    Raises
    ------
    InputError
        If it cannot be written, is something else, or another server records there.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).resolve()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._held = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                "another server records there", where=f"--record {path}", expected="a folder for each"
            ) from error
        except OSError as error:
            raise InputError(f"cannot write: {error.strerror}", where=f"--record {path}") from error
        if not os.access(self.path, os.W_OK):
            raise InputError("cannot write: Permission denied", where=f"--record {path}")
        names = [entry.name for entry in self.path.iterdir()]
        for name in filter(UNFINISHED.fullmatch, names):
            shutil.rmtree(self.path / name, ignore_errors=True)
        self._last = max((int(name) for name in filter(NUMBERED.fullmatch, names)), default=0)

    def following(self) -> Path:
        """Return the path of the next record."""
        self._last += 1
        return self.path / f"{self._last:04d}"
