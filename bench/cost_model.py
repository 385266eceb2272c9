"""How accurate the cost model is, on any published tables: ``bench/cost_model.py [TABLES ...]``.

For each device and op: rows that a fit did not see, from 200 points drawn at random or chosen by the profiler and
from the full table; shapes that were profiled; shapes beyond those that were; and whether bands of 90 % hold what
they promise, in each fifth of the rows by predicted time. Beside it a random forest on the raw numbers of the very
same rows, as Vidur has it. Then the fit of one device predicts another's table, by datasheet alone and after few
measured points. Errors are shares of the measured time: median, 90th percentile, and the sum of errors over the sum
of times. All seeds of a case are pooled.

Examples: python bench/cost_model.py
          python bench/cost_model.py --quick --op gemm ../shared/data/profiles/aiconfigurator
          python bench/cost_model.py tables-of-mine --device h100 --json
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("OMP_NUM_THREADS", "1")

from bench.accuracy.score import Effort, between, within  # noqa: E402
from bench.accuracy.tables import OpTable, op_tables  # noqa: E402
from profiler.op import OPS  # noqa: E402
from traces.command_line import new_app, new_console, new_table, run  # noqa: E402
from traces.errors import InputError  # noqa: E402

TABLES = Path(os.environ.get("CHARIOTEER_DATA", ROOT.parent / "shared" / "data")) / "profiles"
DEFAULT = (
    "aiconfigurator/a100_sxm",
    "aiconfigurator/h100_sxm",
    "vidur/compute/a40",
    "llmservingsim_v0/A6000",
    "llmservingsim/RTX4090",
    "llmservingsim/RTXPRO6000",
)
FULL = Effort(seeds=5, most_rows=1_000_000, most_judged=5000, trees=100)
QUICK = Effort(seeds=1, most_rows=1000, most_judged=1000, trees=10)
WIDTH = 170
JUDGED = ("gemm", "prefill_attention", "decode_attention")
app = new_app("Errors of the cost model on published tables, beside a random forest on the same rows.")


@app.command()
def main(
    tables: Annotated[list[Path] | None, typer.Argument(help="Folders of tables. Default: the published ones.")] = None,
    device: Annotated[str | None, typer.Option(help="Whose tables these are. Default: what they say.")] = None,
    op: Annotated[
        list[str] | None, typer.Option(help=f"One of {', '.join(OPS)}. Default: {', '.join(JUDGED)}.")
    ] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Draws of each random case.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="One seed, fewer rows, a smaller forest.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Print one line a device, op and case."""
    unknown = sorted(set(op or ()) - set(OPS))
    if unknown:
        raise InputError(f"unknown op {unknown[0]!r}", where="--op", expected=f"one of {', '.join(OPS)}")
    effort = QUICK if quick else FULL
    effort = effort if seeds is None else Effort(**(vars(effort) | {"seeds": seeds}))
    folders = tables or [TABLES / name for name in DEFAULT]
    lines = list(_lines(folders, device, frozenset(op or JUDGED), effort))
    if as_json:
        print(json.dumps({"effort": vars(effort), "lines": lines}, indent=1))
    else:
        _print(lines)


def _lines(
    folders: Sequence[Path], device: str | None, ops: frozenset[str], effort: Effort
) -> Iterator[dict[str, Any]]:
    found = [table.smaller(effort.most_rows) for folder in folders for table in op_tables(folder, device, ops)]
    if not found:
        wish = f"enough sound rows of {', '.join(sorted(ops))}"
        raise InputError("nothing to judge", where=", ".join(map(str, folders)), expected=wish)
    for table in found:
        _progress(f"{table.label} {table.op.name}: {len(table.time_s)} rows")
        for case, line in within(table, effort):
            yield _labelled(table, case, line)
    for source in found:
        targets = [each for each in found if each.op is source.op and each.device.name != source.device.name]
        _progress(f"{source.op.name} of {source.device.name} elsewhere: {len(targets)} tables")
        for target, case, line in between(source, targets, effort) if targets else ():
            yield _labelled(target, case, line)


def _labelled(table: OpTable, case: str, line: dict[str, Any]) -> dict[str, Any]:
    return {"table": table.label, "device": table.device.name, "op": table.op.name, "case": case, **line}


def _progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _print(lines: Sequence[dict[str, Any]]) -> None:
    columns = ("op", "case", "fitted", "judged", "median", "P90", "by time", "forest", "P90", "by time", "in band")
    shown = new_table("errors in %", "device", *columns, "by bin")
    for column in shown.columns:
        column.no_wrap, column.justify = True, "right" if column.header not in ("op", "case") else "left"
    for line in lines:
        head = [line["device"], line["op"], line["case"], f"{line['fitted_rows']:,}", f"{line['ours']['rows']:,}"]
        shown.add_row(*head, *_errors(line["ours"]), *_errors(line["forest"]), *_coverage(line.get("coverage")))
    console = new_console()
    console.width = max(console.width, WIDTH)
    console.print(shown)


def _errors(values: dict[str, float] | None) -> list[str]:
    keys = ("median", "p90", "time_weighted")
    return ["" if values is None else f"{100 * values[key]:.2f}" for key in keys]


def _coverage(values: dict[str, float] | None) -> list[str]:
    if values is None:
        return ["", ""]
    return [f"{100 * values['all']:.1f}", f"{100 * values['least']:.1f}-{100 * values['most']:.1f}"]


if __name__ == "__main__":
    run(app, "bench/cost_model.py")
