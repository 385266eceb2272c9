"""The comparison with transformers refuses what it cannot do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("transformers", reason="the engine needs transformers")

SCRIPT = Path(__file__).resolve().parents[2] / "bench" / "engine_vs_transformers.py"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--batch-sizes", "1,x"), "error: --batch-sizes: '1,x'; expected integers >= 1, such as 1,8,32"),
        (("--batch-sizes", "0"), "error: --batch-sizes: '0'"),
        (("--model", "absent"), "error: unknown model 'absent'"),
    ],
)
def test_a_comparison_that_cannot_be(arguments: tuple[str, ...], message: str) -> None:
    done = subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1
