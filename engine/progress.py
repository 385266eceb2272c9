"""A bar for what takes long, on standard error, where that is a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

OnProgress = Callable[[int], None]
"""Called with how many are done."""


@contextmanager
def progress_bar(unit: str, total: int, *, label: str = "") -> Iterator[OnProgress]:
    """Show a bar for ``total`` of ``unit``; yield what moves it."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(unit))
    hidden = not console.is_terminal
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True, disable=hidden) as bars:
        task = bars.add_task(label, total=total)
        yield lambda done: bars.update(task, completed=done)
