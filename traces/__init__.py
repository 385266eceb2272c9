"""The ground floor: workloads in, run records out, and the metrics computed from them.

Importing this package imports nothing heavy; the names below load their modules when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from traces.errors import InputError

if TYPE_CHECKING:
    from traces.generator import GeneratorSettings, generate
    from traces.readers import read_workload
    from traces.source import open_workload
    from traces.workload import Workload
    from traces.writers import write_workload

__all__ = [
    "GeneratorSettings",
    "InputError",
    "Workload",
    "generate",
    "open_workload",
    "read_workload",
    "write_workload",
]


def __getattr__(name: str) -> Any:
    homes = {
        "GeneratorSettings": "generator",
        "generate": "generator",
        "read_workload": "readers",
        "open_workload": "source",
        "Workload": "workload",
        "write_workload": "writers",
    }
    if name not in homes:
        raise AttributeError(f"module 'traces' has no attribute {name!r}")
    return getattr(import_module(f"traces.{homes[name]}"), name)
