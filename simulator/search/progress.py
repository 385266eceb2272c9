"""How a search gets on, on standard error: the rung, the candidates through, the simulations, the best so far."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from simulator.search.estimate import Estimate
from simulator.search.search import Found, Task
from simulator.trials.crew import Rounds

if TYPE_CHECKING:
    from rich.progress import Progress


class Watch:
    """Sees a search go by, and shows it."""

    def __init__(self, task: Task, resumed: int, bars: Progress) -> None:
        self._task = task
        self._bars = bars
        self._simulations = resumed
        self._best: tuple[str, Estimate] | None = None
        self._rungs = 0
        self._line = bars.add_task(
            "", total=None, best=f"{resumed:,} simulations were there already" if resumed else ""
        )

    def over(self, rounds: Rounds[Found]) -> Rounds[Found]:
        """Return the same rounds, each announced."""
        try:
            plans = next(rounds)
            while True:
                self._announce(len(plans))
                plans = rounds.send((yield plans))
        except StopIteration as end:
            found: Found = end.value
            return found

    def estimated(self, label: str, result: Any) -> None:
        """A candidate is through."""
        if isinstance(result, Estimate) and (self._best is None or self._rank(label, result) < self._rank(*self._best)):
            self._best = label, result
        self._bars.update(self._line, advance=1, best=self._said())

    def simulated(self, count: int) -> None:
        """So many simulations more are over."""
        self._simulations += count
        self._bars.update(self._line, best=self._said())

    def _announce(self, plans: int) -> None:
        if self._rungs < len(self._task.ladder):
            rung = self._task.ladder[self._rungs]
            text = f"rung {self._rungs + 1} of {len(self._task.ladder)}, {rung.requests:,} requests"
            self._best = None
        else:
            text = "predicting the best"
        self._rungs += 1
        self._bars.update(self._line, description=text, total=plans, completed=0)

    def _rank(self, label: str, estimate: Estimate) -> Any:
        return self._task.objective.rank(self._task.candidates[label], estimate)

    def _said(self) -> str:
        text = f"{self._simulations:,} simulations"
        if self._best is None:
            return text
        label, estimate = self._best
        objective = self._task.objective
        value = objective.value_of(self._task.candidates[label], estimate)
        return f"{text}; best so far {value:.3g} {objective.unit}: {label}"


@contextmanager
def search_progress(task: Task, resumed: int) -> Iterator[Watch]:
    """Show a line while the block runs, where standard error is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.table import Column

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn(
            "{task.fields[best]}", markup=False, table_column=Column(ratio=1, overflow="ellipsis", no_wrap=True)
        ),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal, expand=True) as bars:
        yield Watch(task, resumed, bars)
