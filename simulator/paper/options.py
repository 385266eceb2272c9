"""The options of ``simulator paper``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from simulator.options import OUTPUT

Names = Annotated[
    list[str] | None,
    typer.Argument(metavar="NAME", help="Experiments to run. Default: none, they are listed.", show_default=False),
]
All = Annotated[bool, typer.Option("--all", help="Run all experiments: minutes, on all cores.")]
Output = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        help="Folder to write to: papers.md, papers.html, figures/NAME.svg. Other files in it stay.",
        rich_help_panel=OUTPUT,
    ),
]
Json = Annotated[
    bool,
    typer.Option("--json", help="Print the list, or all findings, as JSON instead of tables.", rich_help_panel=OUTPUT),
]
