"""How every command of the project starts and how it fails."""

from __future__ import annotations

import sys

import typer

from traces.errors import InputError


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
    """Run ``app`` as ``prog``: an :class:`InputError` is one line on standard error and exit status 2."""
    try:
        app(prog_name=prog)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
    except KeyboardInterrupt:
        print("interrupted: nothing half-written is left behind", file=sys.stderr)
        sys.exit(130)
