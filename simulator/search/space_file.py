"""A search space in a JSON file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from os import PathLike
from typing import Any

from simulator.cluster_settings import read_cluster
from simulator.search.axis import parse_integers, parse_pairs
from simulator.search.prices import read_prices
from simulator.search.space import PolicyAxes
from simulator.search.usual import INTEGERS
from traces.errors import InputError
from traces.files import read_json

PRICES = "prices"


def read_space(path: str | PathLike[str]) -> dict[str, Any]:
    """Return the fields of :class:`simulator.search.space.Space` that a file holds, and its ``prices``.

    ``policies`` is a list of names, or of objects with ``policy`` and settings, each a value or a list of values.
    ``devices`` and ``clusters`` (files as ``--cluster`` takes them) are lists of texts, ``disaggregation`` one of pairs
    such as "2:1", ``prices`` an object; the other keys are lists of integers, or texts such as "256..2048*2".

    Raises
    ------
    InputError
        If the file is no JSON object, or a key or value is wrong.
    """
    document, found = read_json(path), {}
    readers: dict[str, Callable[[Any, str], Any]] = {
        **dict.fromkeys(INTEGERS, _integers),
        "policies": _policies,
        "devices": lambda value, where: tuple(_texts(value, where)),
        "clusters": lambda value, where: tuple(read_cluster(each) for each in _texts(value, where)),
        "disaggregation": lambda value, where: parse_pairs(",".join(_texts(value, where)), where=where),
        PRICES: lambda value, where: read_prices(_object(value, where), where=where),
    }
    for key, value in document.items():
        if key not in readers:
            raise InputError(f"unknown key {key!r}", where=path, expected=f"one of {', '.join(readers)}")
        found[key] = readers[key](value, f"{path}: {key}")
    return found


def _integers(value: Any, where: str) -> tuple[int, ...]:
    listed = value if isinstance(value, list) else [value]
    if any(isinstance(each, bool) or not isinstance(each, int | str) for each in listed):
        raise InputError(f"is {value!r}", where=where, expected="a list of integers, or a text such as 256..2048*2")
    return parse_integers(",".join(map(str, listed)), where=where)


def _policies(value: Any, where: str) -> tuple[PolicyAxes, ...]:
    if not isinstance(value, list) or not value:
        raise InputError(f"is {value!r}", where=where, expected="a list of policies")
    return tuple(_policy(each, f"{where}[{number}]") for number, each in enumerate(value))


def _policy(value: Any, where: str) -> PolicyAxes:
    document = {"policy": value} if isinstance(value, str) else dict(_object(value, where))
    name = document.pop("policy", None)
    if not isinstance(name, str):
        raise InputError("key 'policy' is missing or not a name", where=where)
    empty = [key for key, values in document.items() if values == []]
    if empty:
        raise InputError(f"key {empty[0]!r} lists nothing", where=where, expected="a value, or a list of them")
    settings = {key: tuple(values) if isinstance(values, list) else (values,) for key, values in document.items()}
    return PolicyAxes(name=name, settings=settings)


def _texts(value: Any, where: str) -> list[str]:
    if not isinstance(value, list) or not value or not all(isinstance(each, str) for each in value):
        raise InputError(f"is {value!r}", where=where, expected="a list of texts")
    return list(value)


def _object(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"is {value!r}", where=where, expected="an object with keys")
    return value
