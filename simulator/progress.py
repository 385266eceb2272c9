"""Progress bars on standard error, one a policy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_bars(labels: Iterable[str], total: int, unit: str = "requests") -> Iterator[Callable[[str, int], None]]:
    """Show a bar for each label while the block runs; yield what moves one: ``move(label, done)``.

    Nothing is shown where standard error is no terminal.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        tasks = {label: bars.add_task(label, total=total) for label in labels}
        yield lambda label, done: bars.update(tasks[label], completed=done)
