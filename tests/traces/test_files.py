"""Files that are either whole or not there."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from traces import files, held_signals
from traces.errors import InputError
from traces.files import check_folder, read_json, whole_file, whole_folder, write_json


def test_a_file_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "file.txt"
    with whole_file(target) as temporary:
        temporary.write_text("new")
        assert not target.exists()
    assert target.read_text() == "new"


def test_a_failure_leaves_the_earlier_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "file.txt"
    target.write_text("old")
    with pytest.raises(KeyboardInterrupt), whole_file(target) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_replaces_only_its_own_kind(tmp_path: Path) -> None:
    target = tmp_path / "run"
    with whole_folder(target, marker="run.json") as temporary:
        (temporary / "run.json").write_text("1")
        (temporary / "left-over").write_text("")
    with whole_folder(target, marker="run.json") as temporary:
        (temporary / "run.json").write_text("2")
    assert [path.name for path in target.iterdir()] == ["run.json"]
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("")
    with pytest.raises(InputError, match="precious: exists and is something else"):
        whole_folder(precious, marker="run.json").__enter__()
    assert (precious / "thesis.txt").exists()


def test_a_folder_is_checked_without_a_trace(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    check_folder(tmp_path)
    check_folder(tmp_path / "deep" / "er")
    for name, complaint in (("file", "exists and is something else"), ("file/x", "cannot write: Not a directory")):
        with pytest.raises(InputError, match=complaint):
            check_folder(tmp_path / name)
    with pytest.raises(InputError, match="cannot write"):
        check_folder("/proc/none")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_link_is_followed_and_a_device_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "real.txt").write_text("old")
    link = tmp_path / "link.txt"
    link.symlink_to(tmp_path / "real.txt")
    with whole_file(link) as temporary:
        temporary.write_text("new")
    assert link.is_symlink()
    assert (tmp_path / "real.txt").read_text() == "new"
    for path in ("/dev/null", tmp_path):
        with pytest.raises(InputError, match="is no ordinary file"):
            whole_file(path).__enter__()


def test_a_folder_that_holds_what_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    target = tmp_path / "run"
    with whole_folder(target, marker="run.json") as temporary:
        (temporary / "run.json").write_text("1")
    (target / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"run: holds 'notes.txt', which would be lost"):
        whole_folder(target, marker="run.json", is_ours=lambda entry: entry.name == "run.json").__enter__()
    assert (target / "notes.txt").read_text() == "mine"


def test_files_and_folders_get_the_permissions_of_the_user(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        with whole_file(tmp_path / "file"), whole_folder(tmp_path / "folder", marker="x"):
            pass
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o700


def test_a_failure_leaves_the_earlier_folder(tmp_path: Path) -> None:
    target = tmp_path / "run"
    with whole_folder(target, marker="run.json") as temporary:
        (temporary / "run.json").write_text("1")
    with pytest.raises(RuntimeError), whole_folder(target, marker="run.json") as temporary:
        (temporary / "run.json").write_text("2")
        raise RuntimeError
    assert (target / "run.json").read_text() == "1"
    assert list(tmp_path.iterdir()) == [target]


def stop(number: int, frame: object) -> None:
    raise KeyboardInterrupt


@contextmanager
def stopped_at(step: int) -> Iterator[list[str]]:
    """Send SIGINT when so many lines of the module under test have begun; yield those lines."""
    begun: list[str] = []

    def trace(frame: Any, event: str, argument: object) -> Any:
        if frame.f_code.co_filename not in (files.__file__, held_signals.__file__):
            return None
        if event == "line":
            begun.append(f"{frame.f_code.co_name}:{frame.f_lineno}")
            if len(begun) == step:
                signal.raise_signal(signal.SIGINT)
        return trace

    before = signal.signal(signal.SIGINT, stop)
    sys.settrace(trace)
    try:
        yield begun
    finally:
        sys.settrace(None)
        signal.signal(signal.SIGINT, before)


def overwrite_folder(target: Path) -> None:
    with whole_folder(target, marker="run.json") as temporary:
        (temporary / "run.json").write_text("new")


def overwrite_file(target: Path) -> None:
    with whole_file(target / "run.json") as temporary:
        temporary.write_text("new")


@pytest.mark.parametrize("overwrite", [overwrite_folder, overwrite_file])
def test_a_signal_at_any_line_leaves_earlier_or_later(tmp_path: Path, overwrite: Callable[[Path], None]) -> None:
    target, found, step = tmp_path / "run", [], 0
    while True:
        target.mkdir(exist_ok=True)
        (target / "run.json").write_text("old")
        step += 1
        with stopped_at(step) as begun, suppress(KeyboardInterrupt):
            overwrite(target)
        assert [path.name for path in tmp_path.iterdir()] == ["run"], begun
        assert [path.name for path in target.iterdir()] == ["run.json"], begun
        found.append((target / "run.json").read_text())
        if len(begun) < step:
            break
    assert len(found) > 10
    assert found == sorted(found, reverse=True), "once there is the later one, it stays"
    assert set(found) == {"old", "new"}


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"{", "not JSON"),
        (b"[1]", "holds a list; expected a JSON object"),
        (b"\xff", "not UTF-8 text"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a": ' + b"9" * 5000 + b"}", "a number that is too long"),
    ],
)
def test_json_that_is_none(tmp_path: Path, content: bytes, complaint: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=complaint) as error:
        read_json(path)
    assert str(error.value).startswith(str(path))


def test_json_comes_back_as_it_was_written(tmp_path: Path) -> None:
    document = {"b": 1, "a": [1.5, None, "ü"]}
    write_json(tmp_path / "x.json", document)
    assert list(read_json(tmp_path / "x.json").items()) == list(document.items())
