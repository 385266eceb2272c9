"""What a search has found out so far, on disk before anybody relies on it."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from simulator.trials.outcome import Outcome
from simulator.trials.plan import Answer
from simulator.trials.trial import Trial
from traces.errors import InputError
from traces.held_signals import signals_held

HEADER = "search"


class Journal:
    """Answers by trial, in a file of one line each: after a header, which says what is searched.

    A line is on the disk before its answer is used. One that was being written when the process was killed is cut
    off; any other that cannot be read is an error.
    """

    def __init__(self, path: Path, descriptor: int, answers: dict[str, Answer]) -> None:
        self._path = path
        self._descriptor = descriptor
        self._answers = answers
        self.resumed = len(answers)
        """Answers that were there already."""

    @staticmethod
    @contextmanager
    def open(path: Path, question: Mapping[str, Any]) -> Iterator[Journal]:
        """Open the journal of a search, or begin it; no other process can meanwhile.

        Parameters
        ----------
        question
            All that decides what is found, as JSON values.

        Raises
        ------
        InputError
            If the file is the journal of another search, is broken, is in use, or cannot be written.
        """
        descriptor = _locked(path)
        header = json.dumps({HEADER: question}, sort_keys=True)
        try:
            lines = _whole_lines(descriptor)
            if lines:
                _check_header(lines[0], json.loads(header)[HEADER], path)
            journal = Journal(path, descriptor, dict(_read(lines[1:], path)))
            if not lines:
                journal._append([header])
            yield journal
        finally:
            os.close(descriptor)

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, trial: Trial) -> Answer | None:
        """Return what came out of a trial, None if that is not known yet."""
        return self._answers.get(digest(trial.key))

    def add(self, answered: Iterable[tuple[Trial, Answer]]) -> None:
        """Write answers down; they are on the disk when this returns."""
        lines = []
        for trial, answer in answered:
            self._answers[digest(trial.key)] = answer
            lines.append(json.dumps({"key": digest(trial.key), "trial": json.loads(trial.key), **_answer(answer)}))
        self._append(lines)

    def _append(self, lines: list[str]) -> None:
        data = "".join(line + "\n" for line in lines).encode()
        with signals_held():
            try:
                while data:
                    data = data[os.write(self._descriptor, data) :]
                os.fsync(self._descriptor)
            except OSError as error:
                raise InputError(f"cannot write: {error.strerror}", where=self._path) from error


def digest(text: str) -> str:
    """Return a short name of a text that no other has."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _locked(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise InputError(f"cannot write: {error.strerror}", where=path) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        what = "another search is running on this journal"
        raise InputError(what, where=path, expected="that it ends first, or another --output") from error
    return descriptor


def _whole_lines(descriptor: int) -> list[bytes]:
    """Return the lines of the file, the last one cut off, in the file too, where it does not end."""
    with os.fdopen(os.dup(descriptor), "rb") as file:
        data = file.read()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        os.ftruncate(descriptor, whole)
    return data[:whole].splitlines()


def _check_header(line: bytes, question: Mapping[str, Any], path: Path) -> None:
    try:
        asked = json.loads(line)[HEADER]
        differing = sorted(name for name in {*asked, *question} if asked.get(name) != question.get(name))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        what, wish = "is no journal of a search", "one, or a folder without"
        raise InputError(what, where=f"{path}:1", expected=wish) from error
    if differing:
        what = f"is the journal of another search ({', '.join(differing)} differ)"
        raise InputError(what, where=path, expected="the same command as then, or another --output")


def _read(lines: Iterable[bytes], path: Path) -> Iterator[tuple[str, Answer]]:
    for number, line in enumerate(lines, start=2):
        try:
            document = json.loads(line)
            if digest(json.dumps(document["trial"], sort_keys=True)) != document["key"]:
                raise ValueError("the key is of another trial")
            refused = document.get("refused")
            answer = InputError(refused) if isinstance(refused, str) else Outcome.from_dict(document["outcome"])
            yield document["key"], answer
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            what, wish = "cannot be read", "a line as the search wrote it; without this line its trial is run again"
            raise InputError(what, where=f"{path}:{number}", expected=wish) from error


def _answer(answer: Answer) -> dict[str, Any]:
    return {"refused": str(answer)} if isinstance(answer, InputError) else {"outcome": answer.as_dict()}
