"""The process that has figures drawn: ``python drawing.py FOLDER`` draws each NAME.json in it to NAME.svg.

A process of its own, so that it can be stopped at any moment whatever the browser is at; what goes wrong is one line on
standard output. It imports nothing of the project.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

WIDTH, HEIGHT = 900, 480
"""Pixels of a figure; its own height counts if it has one."""


def main(folder: Path) -> int:
    """Draw the figures in a folder; return 0, or 1 if that cannot be done."""
    try:
        asyncio.run(_draw(sorted(folder.glob("*.json"))))
    except ModuleNotFoundError as error:
        return _failed(f"{error.name} is not installed")
    except Exception as error:  # whatever a browser does is to be told, and in one line
        missing = type(error).__name__ == "ChromeNotFoundError"
        return _failed("no browser was found" if missing else f"the browser failed ({type(error).__name__})")
    return 0


def _failed(why: str) -> int:
    print(why)
    return 1


async def _draw(files: list[Path]) -> None:
    """Draw figures in one browser, which loads no script from elsewhere than plotly's own package."""
    from kaleido import Kaleido

    browser = Kaleido(n=1, mathjax=False)
    signal.signal(signal.SIGTERM, lambda *_: _end_with(browser))
    async with browser:
        await browser.write_fig_from_object([_order(file) for file in files], cancel_on_error=True)


def _end_with(browser: Any) -> NoReturn:
    """End the browser, which is in a group of processes of its own, and this process, at once."""
    if hasattr(browser, "subprocess"):
        with suppress(ProcessLookupError):
            os.killpg(browser.subprocess.pid, signal.SIGKILL)
    os._exit(1)


def _order(file: Path) -> dict[str, Any]:
    figure = json.loads(file.read_text(encoding="utf-8"))
    size = {"width": WIDTH, "height": figure["layout"].get("height", HEIGHT)}
    return {"fig": figure, "path": file.with_suffix(".svg"), "opts": {"format": "svg", **size}}


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
