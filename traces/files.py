"""Files that are either whole or not there: written under a temporary name, then renamed."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from traces.errors import InputError
from traces.held_signals import signals_held


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
    temporary = _beside(target)
    try:
        with _writing(path):
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary.touch(exist_ok=False)
        yield temporary
        temporary.replace(target)
    finally:
        with signals_held(), suppress(OSError):
            temporary.unlink()


@contextmanager
def whole_folder(
    path: str | os.PathLike[str], *, marker: str, is_ours: Callable[[Path], bool] = lambda _: True
) -> Iterator[Path]:
    """Yield a temporary folder beside ``path``; it takes the place of ``path`` when the block ends well.

    Parameters
    ----------
    path
        The folder to make. An existing one is replaced only if it is empty, or holds ``marker`` and nothing
        that is not ours.
    marker
        The file by which a folder of this kind is known, e.g. ``"run.json"``.
    is_ours
        Whether an entry of an existing folder is one that such a folder holds.

    Raises
    ------
    InputError
        If ``path`` exists and is something else, holds something else, or cannot be written.
    """
    target = Path(path).resolve()
    if target.exists():
        _check_replaceable(target, path, marker, is_ours)
    temporary = _beside(target)
    try:
        with _writing(path):
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary.mkdir()
        yield temporary
        with signals_held():
            _exchange(temporary, target)
    finally:
        with signals_held():
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def whole_files(path: str | os.PathLike[str], *, instead_of: Iterable[str] = ()) -> Iterator[Path]:
    """Yield a temporary folder beside ``path``; its files go into ``path`` when the block ends well.

    Other files stay where they are.

    Parameters
    ----------
    path
        The folder, which is made where there is none.
    instead_of
        Files in it, as paths relative to it, that go when the new ones come, unless they are among these.

    Raises
    ------
    InputError
        If ``path`` is something else, or cannot be written.
    """
    check_folder(path)
    target = Path(path).resolve()
    temporary = _beside(target)
    try:
        with _writing(path):
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary.mkdir()
        yield temporary
        with signals_held(), _writing(path):
            _move_into(target, temporary, instead_of)
    finally:
        with signals_held():
            shutil.rmtree(temporary, ignore_errors=True)


def check_folder(path: str | os.PathLike[str]) -> None:
    """Check that files can be written into a folder, or that it can be made: before what may take long.

    Raises
    ------
    InputError
        If ``path`` is something else, or cannot be written.
    """
    target = Path(path).resolve()
    if target.exists() and not target.is_dir():
        raise InputError("exists and is something else", where=path, expected="a new name or a folder")
    there = next(each for each in (target, *target.parents) if each.exists())
    probe = there / f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}"
    with _writing(path), signals_held():
        probe.mkdir()
        probe.rmdir()


def _move_into(target: Path, folder: Path, instead_of: Iterable[str]) -> None:
    names = sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).replace(target / name)
    for name in set(instead_of) - set(names):
        (target / name).unlink(missing_ok=True)


def _exchange(temporary: Path, target: Path) -> None:
    """Put a folder in the place of another, which goes; where that cannot be done, the other stays."""
    old = _beside(target)
    if target.exists():
        target.replace(old)
    try:
        temporary.replace(target)
    except OSError:
        if old.exists():
            old.replace(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _beside(target: Path) -> Path:
    return target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}")


@contextmanager
def _writing(path: str | os.PathLike[str]) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot write: {error.strerror}", where=path) from error


def _check_replaceable(
    target: Path, path: str | os.PathLike[str], marker: str, is_ours: Callable[[Path], bool]
) -> None:
    entries = list(target.iterdir()) if target.is_dir() else None
    if entries is None or (entries and not (target / marker).is_file()):
        wish = f"a new name or a folder with {marker}"
        raise InputError("exists and is something else", where=path, expected=wish)
    foreign = sorted(entry.name for entry in entries if not is_ours(entry))
    if foreign:
        raise InputError(f"holds {foreign[0]!r}, which would be lost", where=path, expected="a folder of its own")


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
    except ValueError as error:
        raise InputError("holds a number that is too long", where=path, expected="a JSON object") from error
    except RecursionError as error:
        raise InputError("nested too deeply", where=path, expected="a JSON object") from error
    if not isinstance(document, dict):
        raise InputError(f"holds a {type(document).__name__}", where=path, expected="a JSON object")
    return document
