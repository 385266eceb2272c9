"""Fixtures every folder of tests shares."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Fits are remembered in a folder of the tests' own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of published measurements and traces; skips where it is absent."""
    folder = Path(os.environ.get("CHARIOTEER_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("the published measurements and traces are not here (set CHARIOTEER_DATA to their folder)")
    return folder
