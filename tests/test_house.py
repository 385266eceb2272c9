"""The house: who may import whom, what stays light, and how long a file may be."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAY_IMPORT = {
    "traces": set(),
    "policies": {"traces"},
    "profiler": {"policies", "traces"},
    "simulator": {"profiler", "policies", "traces"},
    "engine": {"profiler", "policies", "traces"},
}
HEAVY = ("torch", "transformers", "sklearn")


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Top-level names of every import in a file, also those inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_a_package_imports_only_those_beneath_it(package: str) -> None:
    assert modules(package), f"{package} holds no module"
    forbidden = set(MAY_IMPORT) - MAY_IMPORT[package] - {package}
    offences = {
        f"{path.relative_to(ROOT)} imports {sorted(wrong)}"
        for path in modules(package)
        if (wrong := imported(path) & forbidden)
    }
    assert not offences


@pytest.mark.parametrize(
    ("package", "unknown"),
    [
        ("traces", {"torch", "transformers", "sklearn", "simpy"}),
        ("policies", {"torch", "transformers", "sklearn", "simpy", "numpy", "scipy", "pyarrow"}),
        ("profiler", {"torch", "transformers", "simpy"}),
        ("simulator", {"torch", "transformers", "sklearn"}),
    ],
)
def test_a_package_does_not_know(package: str, unknown: set[str]) -> None:
    offences = {
        str(path.relative_to(ROOT)): sorted(wrong) for path in modules(package) if (wrong := imported(path) & unknown)
    }
    assert not offences


def loaded_by(statement: str) -> set[str]:
    """Top-level modules in memory after ``statement`` ran in a fresh interpreter."""
    script = f"{statement}\nimport sys\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.split())


@pytest.mark.parametrize("package", ["traces", "policies", "profiler", "simulator"])
def test_importing_a_light_package_loads_nothing_heavy(package: str) -> None:
    assert not loaded_by(f"import {package}") & set(HEAVY)


@pytest.mark.parametrize("package", ["traces", "profiler", "simulator", "engine"])
def test_a_command_line_loads_nothing_slow_before_it_is_told_what_to_do(package: str) -> None:
    slow = {*HEAVY, "scipy", "plotly", "pandas"}
    assert not loaded_by(f"import {package}.__main__") & slow


def test_importing_policies_does_not_load_numpy() -> None:
    assert "numpy" not in loaded_by("import policies")


def test_no_file_of_the_package_is_over_400_lines() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for package in MAY_IMPORT
        for path in modules(package)
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > 400
    }
    assert not long


def test_no_module_is_a_lumber_room() -> None:
    lumber = {"util", "utils", "helper", "helpers", "common", "misc"}
    assert not [path for package in MAY_IMPORT for path in modules(package) if path.stem in lumber]
