"""Trace files as streams of bytes: plain or gzip, of any size, never trusted."""

from __future__ import annotations

import gzip
import io
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from traces.errors import InputError

BLOCK_BYTES = 8 << 20
MAX_LINE_BYTES = 16 << 20
MAX_PIPE_BYTES = 256 << 20
GZIP_MAGIC = b"\x1f\x8b"


class TraceFile:
    """A file that can be read more than once, plain or gzip (told apart by its first bytes, not its name).

    What cannot be read twice, such as a pipe, is held in memory (at most 256 MiB of it).
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        if "\0" in str(path):
            raise InputError("a name with a null character", expected="the name of a file")
        self.path = Path(path)
        self._held: bytes | None = None

    @property
    def name(self) -> str:
        """The file's name without its folder."""
        return self.path.name

    @property
    def missing(self) -> bool:
        """Whether there is no such file; false where a folder on the way may not be looked into."""
        try:
            return not self.path.exists()
        except OSError:
            return False

    def place(self, line: int, column: str | None = None) -> str:
        """Return ``file:line, column 'x'`` for a message."""
        return f"{self.path}:{line}" + (f", column {column!r}" if column is not None else "")

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Yield the decompressed bytes.

        Raises
        ------
        InputError
            If there is no such file, it cannot be read, or its gzip data is cut off or corrupt (also while
            the caller reads).
        """
        try:
            with self._raw() as raw:
                if _starts_with_gzip_magic(raw):
                    with gzip.GzipFile(fileobj=raw) as unpacked:
                        yield cast(BinaryIO, unpacked)
                else:
                    yield raw
        except EOFError as error:
            raise InputError("the gzip data is cut off", where=self.path, expected="a whole file") from error
        except (gzip.BadGzipFile, zlib.error) as error:
            raise InputError("the gzip data is corrupt", where=self.path, expected="a whole file") from error
        except OSError as error:
            what = f"cannot read: {error.strerror or error}"
            raise InputError(what, where=self.path, expected="a workload file") from error

    def _raw(self) -> BinaryIO:
        if self._held is None and self.path.exists() and not self.path.is_file() and not self.path.is_dir():
            self._held = self._hold()
        return io.BytesIO(self._held) if self._held is not None else self.path.open("rb")

    def _hold(self) -> bytes:
        with self.path.open("rb") as pipe:
            held = pipe.read(MAX_PIPE_BYTES + 1)
        if len(held) > MAX_PIPE_BYTES:
            what = f"more than {MAX_PIPE_BYTES >> 20} MiB through a pipe"
            raise InputError(what, where=self.path, expected="a file for a workload this large")
        return held


def _starts_with_gzip_magic(raw: BinaryIO) -> bool:
    magic = raw.read(len(GZIP_MAGIC))
    raw.seek(0)
    return magic == GZIP_MAGIC


def blocks(stream: BinaryIO) -> Iterator[bytes]:
    """Yield the stream in blocks of whole lines, about 8 MiB each.

    Raises
    ------
    ValueError
        If a line is longer than 16 MiB.
    """
    rest = b""
    while chunk := stream.read(BLOCK_BYTES):
        whole, newline, rest = (rest + chunk).rpartition(b"\n")
        if len(rest) > MAX_LINE_BYTES:
            raise ValueError("line too long")
        if newline:
            yield whole + newline
    if rest:
        yield rest


def lines(trace: TraceFile, stream: BinaryIO) -> Iterator[tuple[int, str]]:
    """Yield the number (from 1) and the text of every line that is not blank, without its line end.

    Raises
    ------
    InputError
        If a line is longer than 16 MiB or not UTF-8.
    """
    number = 0
    while line := stream.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(line) > MAX_LINE_BYTES:
            what = f"a line longer than {MAX_LINE_BYTES >> 20} MiB"
            raise InputError(what, where=trace.place(number), expected="one request a line")
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            wish = "a CSV or JSONL workload, plain or gzip"
            raise InputError("not UTF-8 text", where=trace.place(number), expected=wish) from error
        if text.strip():
            yield number, text
