"""How far the experiments are, on standard error: how many are done, and which run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress


class Watch:
    """Sees experiments begin and end, and shows it."""

    def __init__(self, bars: Progress, total: int) -> None:
        self._bars = bars
        self._running: dict[str, None] = {}
        self._line = bars.add_task("experiments", total=total, doing="")

    def began(self, name: str) -> None:
        """An experiment runs from now on."""
        self._running[name] = None
        self.doing(", ".join(self._running))

    def over(self, name: str) -> None:
        """An experiment is over."""
        del self._running[name]
        self._bars.advance(self._line)
        self.doing(", ".join(self._running))

    def doing(self, what: str) -> None:
        """Say what is being done."""
        self._bars.update(self._line, doing=what)


@contextmanager
def paper_progress(total: int) -> Iterator[Watch]:
    """Show a bar of ``total`` experiments while the block runs, where standard error is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.table import Column

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn(
            "{task.fields[doing]}", markup=False, table_column=Column(ratio=1, overflow="ellipsis", no_wrap=True)
        ),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal, expand=True) as bars:
        yield Watch(bars, total)
