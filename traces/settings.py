"""Frozen settings from the keys of a JSON object: every key known, every value of its type."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from os import PathLike
from typing import Any, TypeVar

from traces.errors import InputError

T = TypeVar("T")


def from_mapping(kind: type[T], document: Mapping[str, Any], *, where: str | PathLike[str]) -> T:
    """Build the dataclass ``kind`` from the keys of ``document``.

    Fields may be ``bool``, ``int``, ``float`` (an integer is taken too), ``str``, a ``Literal``, ``dict``, dataclasses
    of such fields, tuples of those, and any of them or ``None``.

    Raises
    ------
    InputError
        For an unknown or missing key, a value of another type, or one that the class itself refuses
        (a ``ValueError`` from its ``__post_init__``).
    """
    fields = {field.name: field for field in dataclasses.fields(kind) if field.init}  # type: ignore[arg-type]
    for key in document:
        if key not in fields:
            raise InputError(f"unknown key {key!r}", where=where, expected=f"one of {', '.join(fields)}")
    hints = typing.get_type_hints(kind)
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in document:
            raise InputError(f"key {name!r} is missing", where=where)
    values = {key: _value(value, hints[key], key, where) for key, value in document.items()}
    try:
        return kind(**values)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(str(error), where=where) from error


def _value(value: Any, hint: Any, key: str, where: str | PathLike[str]) -> Any:
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    for option in options:
        matches, taken = _match(value, option, f"{where}, {key}")
        if matches:
            return taken
    wish = " or ".join(_named(option) for option in options)
    raise InputError(f"key {key!r} is {value!r}", where=where, expected=wish.replace("NoneType", "null"))


def _named(hint: Any) -> str:
    if typing.get_origin(hint) is typing.Literal:
        return " or ".join(map(str, typing.get_args(hint)))
    return str(getattr(hint, "__name__", hint))


def _match(value: Any, hint: Any, where: str) -> tuple[bool, Any]:
    origin = typing.get_origin(hint)
    if origin is tuple and isinstance(value, list | tuple):
        inner = typing.get_args(hint)[0]
        pairs = [_match(item, inner, f"{where}[{index}]") for index, item in enumerate(value)]
        return all(matches for matches, _ in pairs), tuple(taken for _, taken in pairs)
    if origin is typing.Literal:
        return value in typing.get_args(hint), value
    if origin is dict:
        return isinstance(value, dict), value
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return True, from_mapping(hint, value, where=where)  # type: ignore[arg-type]
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return True, float(value)
    if hint in (int, float) and isinstance(value, bool):
        return False, value
    return isinstance(hint, type) and isinstance(value, hint), value
