"""What ``simulator paper`` does: list the experiments, or carry out some, draw, write the page, print."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from simulator.paper.catalog import EXPERIMENTS
from simulator.paper.choice import chosen, command_of
from simulator.paper.document import about, document
from simulator.paper.experiment import Experiment
from simulator.paper.html_page import html
from simulator.paper.laboratory import carry_out_experiments
from simulator.paper.markdown import markdown
from simulator.paper.page import TITLE, blocks
from simulator.paper.pictures import Pictures, draw
from simulator.paper.progress import paper_progress
from simulator.paper.result import Result
from simulator.paper.table import print_experiments, print_results
from simulator.trials.workers import processes
from traces.errors import InputError
from traces.files import check_folder, whole_files

if TYPE_CHECKING:
    from simulator.figure_style import Panel

PAGE, WEB_PAGE, FIGURES = "papers.md", "papers.html", "figures"
MARK = f"# {TITLE}\n"
FIGURE = re.compile(rf"\]\(({FIGURES}/[\w.-]+\.svg)\)")


def run_papers(
    names: Sequence[str],
    everything: bool,
    output: Path,
    *,
    as_json: bool = False,
    experiments: Sequence[Experiment] = EXPERIMENTS,
) -> tuple[Result, ...]:
    """List the experiments, or carry out those of these names, or all; write the page to ``output``, and print.

    Raises
    ------
    InputError
        If there is no experiment of a name, or ``output`` is something else; nothing is written then.
    """
    picked = chosen(names, everything, experiments)
    if not picked:
        _list(experiments, as_json=as_json)
        return ()
    command = command_of(names, everything, experiments)
    before = _drawn_before(output)
    with paper_progress(len(picked)) as watch:
        with processes() as crew:
            results = carry_out_experiments(picked, crew, watch)
        watch.doing("drawing the figures")
        pictures = draw(_panels(results))
        watch.doing("writing the page")
        _write(output, results, command, pictures, before)
    _show(output, results, command, pictures, as_json=as_json)
    return results


def _list(experiments: Sequence[Experiment], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({each.name: about(each) for each in experiments}, indent=2))
    else:
        print_experiments(experiments)


def _panels(results: Sequence[Result]) -> list[Panel]:
    panels = [panel for result in results for panel in result.found.panels]
    assert len({panel.name for panel in panels}) == len(panels), "figures share a name"
    return panels


def _drawn_before(output: Path) -> list[str]:
    """Return the figures of the page that is in a folder already, as paths relative to it.

    Raises
    ------
    InputError
        If the folder is none or cannot be written, or its page is not one of ours.
    """
    check_folder(output)
    for name in (PAGE, WEB_PAGE):
        if (output / name).exists() and not (output / name).is_file():
            raise InputError("exists and is no file", where=output / name, expected="another folder")
    if (output / FIGURES).exists():
        check_folder(output / FIGURES)
    page = output / PAGE
    if not page.exists():
        return []
    text = page.read_text(encoding="utf-8", errors="replace")
    if not text.startswith(MARK):
        raise InputError("is not a page of this command, and would be lost", where=page, expected="another folder")
    return FIGURE.findall(text)


def _write(output: Path, results: Sequence[Result], command: str, pictures: Pictures, before: Sequence[str]) -> None:
    content = list(blocks(results, command, pictures.missing))
    with whole_files(output, instead_of=before) as folder:
        (folder / FIGURES).mkdir()
        for name, drawing in pictures.drawings.items():
            (folder / FIGURES / f"{name}.svg").write_text(drawing, encoding="utf-8", newline="\n")
        with (folder / PAGE).open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(markdown(TITLE, content, pictures.drawings))
        with (folder / WEB_PAGE).open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(html(TITLE, blocks(results, command)))


def _show(output: Path, results: Sequence[Result], command: str, pictures: Pictures, *, as_json: bool) -> None:
    if pictures.missing:
        print(pictures.missing, file=sys.stderr)
    if as_json:
        print(json.dumps(document(results, command), indent=2))
    else:
        print_results(results)
        print(f"Page: {output / PAGE}\nReport: {output / WEB_PAGE}")
