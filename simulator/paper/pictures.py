"""Figures as SVG files, drawn by a browser that is already there; equal figures give equal bytes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from simulator.paper import drawing

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from simulator.figure_style import Panel

START_S, FIGURE_S = 60, 10
"""Seconds that a browser gets to start, and for each figure."""
MISSING = (
    "The figures are in papers.html alone, not in figures/*.svg: {why}. To get these as well: "
    "pip install 'charioteer[figures]', and a Chrome or Chromium on the path or named by BROWSER_PATH."
)


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Figures drawn.

    Attributes
    ----------
    drawings
        SVG documents by the names of their panels.
    missing
        Why there is none, in a sentence; "" where all were drawn.
    """

    drawings: Mapping[str, str] = field(default_factory=dict)
    missing: str = ""


def draw(panels: Sequence[Panel]) -> Pictures:
    """Draw figures as SVG, by one browser that is started for all of them.

    Where kaleido or a browser is absent, or fails, nothing is drawn, and the result says so.
    """
    with TemporaryDirectory(prefix="charioteer-figures-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        for panel in panels:
            (folder / f"{panel.name}.json").write_text(_plain(panel.figure), encoding="utf-8")
        if why := _failure(folder, START_S + FIGURE_S * len(panels)):
            return Pictures(missing=MISSING.format(why=why))
        return Pictures(drawings={panel.name: _drawing(folder, panel.name) for panel in panels})


def _failure(folder: Path, most_s: float) -> str:
    """Have the figures in a folder drawn; return why that cannot be done, "" where it is."""
    command = [sys.executable, "-P", drawing.__file__, str(folder)]
    own = {**os.environ, "TMPDIR": str(folder)}
    with subprocess.Popen(
        command, env=own, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True
    ) as process:
        try:
            said, _ = process.communicate(timeout=most_s)
        except subprocess.TimeoutExpired:
            return f"the browser did not answer within {most_s:g} s"
        finally:
            process.terminate()
    return "" if process.returncode == 0 else said.strip() or "the browser failed"


def _plain(figure: Figure) -> str:
    """Return a figure as JSON whose traces have names of their own, where plotly would draw some by lot."""
    document = json.loads(figure.to_json())
    for index, trace in enumerate(document["data"]):
        trace["uid"] = f"trace{index}"
    return json.dumps(document)


def _drawing(folder: Path, name: str) -> str:
    return with_stable_names((folder / f"{name}.svg").read_text(encoding="utf-8"), name) + "\n"


def with_stable_names(svg: str, name: str) -> str:
    """Return a drawing by plotly in which ``name`` stands for the lot that it drew to name its parts.

    Six hexadecimal digits, the same in all names: ``<defs id="defs-6bce5d">``, ``clip-path="url(#clip6bce5dxy)"``.
    """
    lot = re.search(r'<defs id="defs-([0-9a-f]{6})"', svg)
    if lot is None:
        raise ValueError("not a drawing by plotly: it has no <defs> with a name")
    return re.sub(rf"""(\bid="|\burl\(['"]?#)([\w-]*?){lot[1]}""", rf"\g<1>\g<2>{name}-", svg)
