"""What the importers have in common: a family of tables, and what one table yields."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from profiler.model import Model, load_model, model_names
from traces.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

    from profiler.importers.raw_table import RawTable


@dataclass(frozen=True, kw_only=True)
class Part:
    """What a file yields.

    Attributes
    ----------
    tables
        Rows in the columns of a profile.
    left_out
        Rows of the file that are not imported, by reason.
    device_name, versions
        What the file says of its device and software.
    """

    tables: Sequence[pa.Table] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)
    device_name: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)


Choose = Callable[[Sequence[Path]], tuple[Sequence[Path], Mapping[str, str]]]


def choose_all(paths: Sequence[Path]) -> tuple[Sequence[Path], Mapping[str, str]]:
    """Take every file."""
    return paths, {}


@dataclass(frozen=True, kw_only=True)
class Family:
    """Tables that one project publishes.

    Attributes
    ----------
    name, source, timed_by
        What people call it; repository and licence; how its times were taken.
    kinds
        For each kind of table, the columns that it is known by and must have.
    convert
        (kind, table, model or None) -> what it yields.
    choose
        Files of one device -> those to read, and for each other one (by its path) why not.
    """

    name: str
    source: str
    timed_by: str
    kinds: Mapping[str, frozenset[str]]
    convert: Callable[[str, RawTable, Model | None], Part]
    choose: Choose = choose_all


def plain(name: str) -> str:
    """Return the letters and digits of ``name``, in lower case."""
    return "".join(letter for letter in name.lower() if letter.isalnum())


def model_of(path: Path) -> Model | None:
    """Return the preset whose name a folder on the way to ``path`` has, if there is one."""
    presets = {plain(name): name for name in model_names()}
    for folder in reversed(path.resolve().parts[:-1]):
        name = plain(folder.removesuffix("-hf"))
        if name in presets:
            return load_model(presets[name])
    return None


def needed(model: Model | None, path: Path) -> Model:
    """Return ``model``; tables that name layers but no sizes need one.

    Raises
    ------
    InputError
        If there is none.
    """
    if model is None:
        wish = "a folder named as a model preset on its path, or --model"
        raise InputError("whose layers these are is not known", where=path, expected=wish)
    return model


def degree_of(path: Path) -> int:
    """Return the degree of tensor parallelism that a folder ``tpN`` on the way to ``path`` names, else 1."""
    for folder in reversed(path.resolve().parts[:-1]):
        if folder.startswith("tp") and folder[2:].isdecimal():
            return int(folder[2:])
    return 1
