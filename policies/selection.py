"""Several policies named in one line of text."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from policies.catalog import POLICIES, PolicyChoice, parse_choice, read_policy
from traces.errors import InputError


def parse_policies(text: str, *, settings: Mapping[str, Any]) -> dict[str, PolicyChoice]:
    """Return the policies that ``--policies`` names, by label.

    Parameters
    ----------
    text
        Names, each optionally with settings of its own (``sarathi-serve:max_num_batched_tokens=1024``), or
        paths of ``policy.json`` files, separated by commas.
    settings
        Settings for all policies that have them, but for those that follow from the deployment by default
        (vLLM v0's max_num_batched_tokens); a policy's own come first. None means not given.

    Raises
    ------
    InputError
        For an unknown policy or setting, or the same policy twice with the same settings.
    """
    choices: dict[str, PolicyChoice] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        choice = _parse_policy(item, settings)
        label = _label(item, choice)
        if label in choices:
            label = _label(item, choice, whole=True)
        if label in choices:
            raise InputError(f"{label} is there twice", where="--policies", expected="different settings")
        choices[label] = choice
    if not choices:
        raise InputError("names no policy", where="--policies", expected=f"one of {', '.join(POLICIES)}")
    return choices


def _parse_policy(item: str, settings: Mapping[str, Any]) -> PolicyChoice:
    if item.endswith(".json"):
        return read_policy(item)
    name, *pairs = item.split(":")
    own = dict(parse_setting(pair, where="--policies") for pair in pairs)
    fields = dataclasses.fields(POLICIES[name][1]) if name in POLICIES else ()
    takes = {field.name for field in fields if field.default is not None}
    shared = {key: value for key, value in settings.items() if value is not None and key in takes}
    return parse_choice(name, shared | own, where="--policies")


def parse_setting(pair: str, *, where: str | PathLike[str]) -> tuple[str, Any]:
    """Return the name and the value of ``setting=value``: a number, true or false.

    Raises
    ------
    InputError
        If it is not of that form; ``where`` it stands is said.
    """
    key, equals, value = pair.partition("=")
    if not equals:
        raise InputError(f"setting {pair!r}", where=where, expected="name:setting=value")
    if value.lower() in ("true", "false"):
        return key, value.lower() == "true"
    for kind in (int, float):
        try:
            return key, kind(value)
        except ValueError:
            continue
    raise InputError(f"setting {pair!r}", where=where, expected="a number, true or false")


def _label(item: str, choice: PolicyChoice, *, whole: bool = False) -> str:
    if item.endswith(".json"):
        return f"{choice.name}-{Path(item).stem}"
    _, *pairs = item.split(":")
    return "-".join([choice.name, *(pair if whole else pair.partition("=")[2] for pair in pairs)])
