"""How every command of the project starts and how it fails."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING, NoReturn

import typer

from traces.errors import InputError
from traces.held_signals import STOPPING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

PIPED_WIDTH = 100


def new_app(summary: str) -> typer.Typer:
    """Return a typer application with the project's conventions (no completion, short options, rich help)."""
    return typer.Typer(
        help=summary,
        no_args_is_help=False,
        add_completion=False,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def run(app: typer.Typer, prog: str) -> None:
    """Run ``app`` as ``prog``.

    An :class:`InputError`, or a disk that is full or cannot be read, is one line on standard error and exit status
    2. When the process is interrupted or told to end, temporary files are removed first; then one line says so, and
    the exit status is 128 and the signal's number.
    """
    for number in STOPPING:
        signal.signal(number, _stop)
    try:
        app(prog_name=prog)
    except Stopped as stop:
        print(f"error: stopped by {stop.signal.name}; {stop.says}", file=sys.stderr)
        sys.exit(128 + stop.signal)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
    except OSError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)


class Stopped(SystemExit):
    """The process was interrupted or told to end; ``says`` what has become of its work."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.signal = signal.Signals(number)
        self.says = "what was not complete has been removed"


def _stop(number: int, _frame: object) -> NoReturn:
    """Unwind, so that everything cleans up after itself; a second signal does not disturb that."""
    for other in STOPPING:
        signal.signal(other, signal.SIG_IGN)
    raise Stopped(number)


def new_console() -> Console:
    """Return a console on standard output: as wide as the terminal, and 100 columns where it is none."""
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, PIPED_WIDTH)
    return console


def new_table(title: str, first: str, *others: str) -> Table:
    """Return a table in the project's style: the first column to the left, the others to the right."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    heading = Text(title, style="bold") if title else None
    table = Table(title=heading, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    table.add_column(first)
    for name in others:
        table.add_column(name, justify="right")
    return table
