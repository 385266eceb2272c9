"""The command line that makes a result again."""

from __future__ import annotations

import shlex
from collections.abc import Container
from dataclasses import MISSING, fields
from typing import Any


def command_text(command: str, request: Any, *, without: Container[str] = ("output",)) -> str:
    """Return the command that finds the same again.

    Parameters
    ----------
    request
        A dataclass whose fields are options, by their names; those at their defaults are left out.
    without
        Fields that do not show in what is found, such as where it is written.
    """
    words = [f"python -m simulator {command}"]
    for option in fields(request):
        value, flag = getattr(request, option.name), f"--{option.name.replace('_', '-')}"
        default = option.default if option.default_factory is MISSING else option.default_factory()
        if option.name in without or value == default:
            continue
        if value is True:
            words.append(flag)
        else:
            listed = value if isinstance(value, list | tuple) else [value]
            words += [f"{flag} {shlex.quote(str(each))}" for each in listed]
    return " ".join(words)
