"""Lets a checkout that is not installed be found as if it were: ``bench/gpu/installed.py FOLDER``.

Writes the metadata of ``pyproject.toml`` (version, entry points) to FOLDER, which then belongs on ``PYTHONPATH``.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def main(folder: Path) -> None:
    """Write ``<name>-<version>.dist-info`` to ``folder``."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    name, version = project["name"], project["version"]
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")
    groups = project.get("entry-points", {})
    lines = [
        f"[{group}]\n" + "".join(f"{key} = {target}\n" for key, target in groups[group].items()) for group in groups
    ]
    (info / "entry_points.txt").write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
