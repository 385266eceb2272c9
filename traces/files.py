"""Files that are either whole or not there: written under a temporary name, then renamed."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from traces.errors import InputError


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; it takes the place of ``path`` when the block ends well.

    Raises
    ------
    InputError
        If the folder of ``path`` cannot be made or written, or ``path`` is a folder or a device.
    """
    target = Path(path).resolve()
    if target.exists() and not target.is_file():
        raise InputError("is no ordinary file", where=path, expected="the path of a file")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    except OSError as error:
        raise InputError(f"cannot write: {error.strerror}", where=target) from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: str | os.PathLike[str], *, marker: str) -> Iterator[Path]:
    """Yield a temporary folder beside ``path``; it takes the place of ``path`` when the block ends well.

    Parameters
    ----------
    path
        The folder to make. An existing one is replaced only if it is empty or holds ``marker``.
    marker
        The file by which a folder of this kind is known, e.g. ``"run.json"``.

    Raises
    ------
    InputError
        If ``path`` exists and is something else, or cannot be written.
    """
    target = Path(path).resolve()
    if target.exists() and not _is_replaceable(target, marker):
        raise InputError("exists and is something else", where=path, expected=f"a new name or a folder with {marker}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise InputError(f"cannot write: {error.strerror}", where=target) from error
    try:
        yield temporary
        temporary.chmod(0o755)
        if target.exists():
            shutil.rmtree(target)
        temporary.replace(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _is_replaceable(folder: Path, marker: str) -> bool:
    return folder.is_dir() and ((folder / marker).is_file() or not any(folder.iterdir()))


def write_json(path: str | os.PathLike[str], document: Mapping[str, Any]) -> None:
    """Write ``document`` to ``path`` as indented JSON, keys in the order given, whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(document, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a JSON object from ``path``.

    Raises
    ------
    InputError
        If the file is missing, is not UTF-8 JSON (with line and column), or holds no object.
    """
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read: {error.strerror}", where=path, expected="a JSON file") from error
    except UnicodeDecodeError as error:
        raise InputError("not UTF-8 text", where=path, expected="a JSON file") from error
    except json.JSONDecodeError as error:
        where = f"{path}:{error.lineno}, column {error.colno}"
        raise InputError(f"not JSON: {error.msg}", where=where, expected="a JSON object") from error
    except RecursionError as error:
        raise InputError("nested too deeply", where=path, expected="a JSON object") from error
    if not isinstance(document, dict):
        raise InputError(f"holds a {type(document).__name__}", where=path, expected="a JSON object")
    return document
