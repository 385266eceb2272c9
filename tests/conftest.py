"""Fixtures every folder of tests shares."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of published measurements and traces; skips where it is absent."""
    folder = Path(os.environ.get("CHARIOTEER_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("the published measurements and traces are not here (set CHARIOTEER_DATA to their folder)")
    return folder
