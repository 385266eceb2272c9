"""What a validation found as rows of text, for the terminal and for the report alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan

from simulator.figure_style import KIND_NAMES
from simulator.scoreboard import three_digits
from simulator.validation.agreement import METRICS, RATES, Case, IterationErrors, Pair
from simulator.validation.audit import COVERAGE
from simulator.validation.ranking import Order, Winner
from simulator.validation.validation import Validation
from simulator.validation.verdict import LIMITS, percent

NONE = "–"
KIND_COLUMNS = ("\nmedian", "\nbias", "\nin all")


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """A table of text.

    Attributes
    ----------
    title, note
        What it shows; how to read it.
    columns
        Names of the columns; a group of columns has one name, before a line break, in the first of them.
    rows
        Cells, as many a row as there are columns.
    short
        (row, column) of the cells that fall short of what was promised.
    """

    title: str
    note: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    short: frozenset[tuple[int, int]] = frozenset()


def iteration_sheet(validation: Validation) -> Sheet:
    """Return the errors of the iteration times, case by case and over all."""
    drifts = any(case.drift is not None for case in validation.cases)
    rows = [_iteration_row(case, drifts) for case in validation.cases]
    total, same = (sum(getattr(case.batches, name) for case in validation.cases) for name in ("measured", "same"))
    rows.append(("all", f"{total:,}", _same(same, total), "", *_errors(validation.errors), *([""] if drifts else [])))
    others = {(row, 2) for row, cells in enumerate(rows) if cells[2] != "all"}
    far = {(len(rows) - 1, 4)} if validation.errors.median > LIMITS.iteration else set[tuple[int, int]]()
    return Sheet(
        title="Iteration times, predicted against measured (%)",
        note=(
            "same: batches that the simulator makes as the engine did when it is given the measured times. free "
            "run: batches in common before a run on predicted times parts from the engine's. median, P90, by time: "
            "of the error's size. bias: its median, below 0 where the engine was slower than predicted. in all: the "
            f"busy time as a whole. in band: iterations within the cost model's {100 * COVERAGE:.0f} % interval."
        )
        + (
            " drift: how much longer (+) designed batches took than in the profile; the predictions know."
            if drifts
            else ""
        ),
        columns=(
            *("case", "batches", "same", "free run", "median", "P90", "by time", "bias", "in all", "in band"),
            *(["drift"] if drifts else []),
        ),
        rows=tuple(rows),
        short=frozenset(others | far),
    )


def _iteration_row(case: Case, drifts: bool) -> tuple[str, ...]:
    batches = case.batches
    free = "all" if batches.leading == batches.measured == batches.simulated else f"{batches.leading:,}"
    drift = [NONE if case.drift is None else _signed(case.drift)] if drifts else []
    counts = f"{batches.measured:,}", _same(batches.same, batches.measured), free
    return f"{case.load} · {case.policy}", *counts, *_errors(case.errors), *drift


def _same(same: int, of_all: int) -> str:
    return "all" if same == of_all else f"{same:,}"


def _errors(errors: IterationErrors) -> list[str]:
    sizes = [_plain(value) for value in (errors.median, errors.p90, errors.by_time)]
    return [*sizes, _signed(errors.bias), _signed(errors.total), _plain(errors.coverage)]


def kind_sheet(validation: Validation) -> Sheet:
    """Return the errors of the iteration times by kind of batch."""
    found = [*((KIND_NAMES[name], errors) for name, errors in validation.by_kind.items()), ("all", validation.errors)]
    return Sheet(
        title="Iteration times by kind of batch (%)",
        note="",
        columns=("batch", "iterations", "median", "P90", "by time", "bias", "in all", "in band"),
        rows=tuple((name, f"{errors.iterations:,}", *_errors(errors)) for name, errors in found),
    )


def case_kind_sheet(validation: Validation) -> Sheet:
    """Return the errors of the iteration times of each case by kind of batch."""
    found = list(validation.by_kind)
    rows = [(f"{case.load} · {case.policy}", *_kind_cells(case, found)) for case in validation.cases]
    return Sheet(
        title="Iteration times of each case by kind of batch (%)",
        note="",
        columns=("case", *(column for name in found for column in (f"{KIND_NAMES[name]}\nbatches", *KIND_COLUMNS))),
        rows=tuple(rows),
    )


def _kind_cells(case: Case, found: Sequence[str]) -> list[str]:
    cells = []
    for name in found:
        errors = case.by_kind.get(name)
        if errors is None:
            cells += ["0", NONE, NONE, NONE]
        else:
            sizes = _plain(errors.median), _signed(errors.bias), _signed(errors.total)
            cells += [f"{errors.iterations:,}", *sizes]
    return cells


def metric_sheet(validation: Validation, policy: str, loads: Sequence[str]) -> Sheet:
    """Return every metric of a policy, measured beside predicted, a group of columns a load."""
    rows, short = [], set()
    for index, name in enumerate(METRICS):
        known = [validation.case(load, policy).metrics[name] for load in loads]
        suffix, scale = _unit(name, known)
        rows.append((name + suffix, *(cell for pair in known for cell in _pair(pair, scale))))
        if name in LIMITS.metrics:
            far = [abs(pair.deviation) > LIMITS.latency for pair in known]
            short |= {(index, 3 * group + 3) for group, is_far in enumerate(far) if is_far}
    return Sheet(
        title=policy,
        note="",
        columns=("", *(name for load in loads for name in (f"{load}\nmeasured", "\npredicted", "\noff %"))),
        rows=tuple(rows),
        short=frozenset(short),
    )


def _unit(name: str, known: Sequence[Pair]) -> tuple[str, float]:
    if name in RATES:
        return "", 1.0
    most = max((value for pair in known for value in (pair.measured, pair.predicted) if not isnan(value)), default=0.0)
    return (" (s)", 1.0) if most >= 10 else (" (ms)", 1e3)


def _pair(pair: Pair, scale: float) -> tuple[str, str, str]:
    return three_digits(scale * pair.measured), three_digits(scale * pair.predicted), _signed(pair.deviation)


def winner_sheet(validation: Validation) -> Sheet:
    """Return the best policy of each load, and over all loads."""
    rows = [_winner_row(load, each) for load, each in validation.winners.items()]
    best = validation.best_measured, validation.best_predicted
    rows.append(("over all", *best, "yes" if best[0] == best[1] else "no", "", "", "", ""))
    return Sheet(
        title="The best policy",
        note=(
            "Of the runs that keep up (median scheduling delay up to 2 s) with output within 5 % of the most: the "
            "lowest P99 TBT, ties within 5 % by median TTFT. Over all loads: the winner at the highest load that any "
            "policy keeps up with. cost: measured under the predicted policy against the measured best (%)."
        ),
        columns=(
            *("load", "measured", "predicted", "same", "keep up:\nmeasured / predicted"),
            *("cost in\nTBT P99", "\nTTFT P50", "\ntokens/s"),
        ),
        rows=tuple(rows),
        short=frozenset((row, 3) for row, cells in enumerate(rows) if cells[3].startswith("no")),
    )


def _winner_row(load: str, each: Winner) -> tuple[str, ...]:
    same = "yes" if each.agree else "no (tie)" if each.tie else "no"
    keep_up = f"{len(each.keep_up_measured)} / {len(each.keep_up_predicted)}"
    costs = [NONE if each.agree else _signed(cost) for cost in each.cost.values()]
    return load, each.measured, each.predicted, same, keep_up, *costs


def order_sheet(validation: Validation) -> Sheet:
    """Return Kendall's tau of each metric, over all cases and over the policies of each load."""
    scopes = ("all", *validation.loads)
    return Sheet(
        title="Does the order agree? Kendall's tau, measured against predicted",
        note=(
            "1: the same order, -1: the opposite one. In brackets: pairs in another order. ~: all of those lie within "
            f"{percent(validation.noise, signed=False)} of each other as measured (the median error of an iteration, "
            "5 % at most): ties that neither order settles."
        ),
        columns=("metric", "all cases", *validation.loads),
        rows=tuple((name, *(_order(own[scope]) for scope in scopes)) for name, own in validation.orders.items()),
    )


def _order(order: Order) -> str:
    tau = NONE if isnan(order.tau) else f"{order.tau:.2f}"
    if not order.reversed:
        return tau
    return f"{tau} ({order.reversed}){'~' if order.reversed == order.reversed_ties else ''}"


def provenance_rows(validation: Validation) -> list[tuple[str, str]]:
    """Return what was run, on what, as (name, text)."""
    known, deployment = validation.provenance, validation.provenance["deployment"]
    workloads: Mapping[str, Mapping[str, object]] = known["workloads"]
    tokens = known["kv_blocks"] * known["block_size"]
    return [
        ("Model", f"{deployment.get('model', '?')}, {deployment.get('dtype') or 'its own type'}"),
        ("Device", str(known["versions"].get("device", deployment.get("device", "?")))),
        ("KV cache", f"{known['kv_blocks']:,} blocks of {known['block_size']} ({tokens:,} tokens)"),
        *((f"Load {load}", workload_text(workload)) for load, workload in workloads.items()),
        ("Engine", _versions(known["versions"])),
        ("Simulator", _versions(known["simulated_with"])),
        ("Cost model", _cost_model(known["cost_model"])),
        ("Seed", str(known["seed"])),
    ]


def workload_text(known: Mapping[str, object]) -> str:
    """Return what :func:`traces.run_log.describe_workload` says, for people."""
    rate = known.get("rate_per_s")
    at = f"{three_digits(rate)} requests/s" if isinstance(rate, int | float) else "all at once"
    return f"{known['requests']:,} requests, {at}, {known['prompt_tokens']:,} + {known['output_tokens']:,} tokens"


def _cost_model(known: Mapping[str, object]) -> str:
    transferred = ", transferred by the data sheets" if known.get("transferred") else ""
    return f"fitted to measurements of {known.get('from', '?')}{transferred}"


def _versions(versions: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items() if name != "device")


def _plain(share: float) -> str:
    return NONE if isnan(share) else f"{100 * share:.1f}"


def _signed(share: float) -> str:
    return NONE if isnan(share) else f"{100 * share:+.1f}"
