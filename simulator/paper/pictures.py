"""Figures as SVG files, drawn by a browser that is already there; equal figures give equal bytes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from simulator.figure_style import Panel

WIDTH, HEIGHT = 900, 480
"""Pixels of a figure; its own height counts if it has one."""
HOW = (
    "pip install 'charioteer[figures]' and have Chrome or Chromium on the path (or name it by BROWSER_PATH); "
    "nothing is downloaded"
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

    Where kaleido or a browser is absent nothing is drawn, and the result says so.
    """
    try:
        from kaleido import errors
    except ImportError:
        return Pictures(missing=f"No figures/*.svg: kaleido is not installed. To get them: {HOW}.")
    away = (errors.ChromeNotFoundError, errors.BrowserFailedError, errors.BrowserClosedError, TimeoutError)
    try:
        with TemporaryDirectory(prefix="charioteer-figures-") as folder:
            asyncio.run(_write({Path(folder) / f"{panel.name}.svg": panel.figure for panel in panels}))
            return Pictures(drawings={panel.name: _drawing(Path(folder), panel.name) for panel in panels})
    except away as error:
        why = "no browser was found" if isinstance(error, errors.ChromeNotFoundError) else "the browser failed"
        return Pictures(missing=f"No figures/*.svg: {why}. To get them: {HOW}.")


async def _write(figures: Mapping[Path, Figure]) -> None:
    """Write each figure to its path; no script is loaded from elsewhere than plotly's own package."""
    from kaleido import Kaleido

    orders = [{"fig": _named(figure), "path": path, "opts": _size(figure)} for path, figure in figures.items()]
    async with Kaleido(n=1, mathjax=False) as browser:
        await browser.write_fig_from_object(orders, cancel_on_error=True)


def _named(figure: Figure) -> dict[str, Any]:
    """Return a figure whose traces have names of their own, where plotly would draw some by lot."""
    document: dict[str, Any] = figure.to_dict()
    for index, trace in enumerate(document["data"]):
        trace["uid"] = f"trace{index}"
    return document


def _size(figure: Figure) -> dict[str, Any]:
    return {"format": "svg", "width": WIDTH, "height": figure.layout.height or HEIGHT}


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
