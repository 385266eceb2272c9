"""The iterations of Yi-34B that the artifact of Sarathi-Serve shipped, and what they hold beside kernels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from profiler.cost_model import CostModel
from profiler.published import Published
from simulator.paper.basis import basis
from simulator.paper.experiment import SARATHI_SERVE, Change, Experiment, Finding, Findings, Table
from simulator.paper.serving.authors_engine import curve_of, explained
from simulator.paper.serving.setup import YI_34B
from simulator.paper.serving.yi_iterations_figure import iterations_panel
from simulator.paper.serving.yi_models import Models, parted_rows
from simulator.trials.plan import Plan

CAUSES = {
    (True, False): "their engine's cost beside kernels, and its attention of whole prompts",
    (False, True): "their engine's cost beside kernels",
    (True, True): "their engine's cost beside kernels",
}
"""Why iterations deviate, by whether they hold chunks, and decodes."""


def plan(scratch: Path) -> Plan[Findings]:  # noqa: ARG001
    """Predict every published iteration."""
    yield from ()
    models, rows = Models.load(), _rows()
    findings = tuple(_findings(rows, models))
    return Findings(
        findings=findings,
        panels=(iterations_panel(models),),
        stands_on=(basis(YI_34B.deployment),),
        changes=tuple(
            Change(finding=each.name, what=what, ours=1e3 * model.iteration_time(rows[each.name].batch))
            for each in findings
            for what, model in models.on(rows[each.name]).items()
        ),
        tables=(_parts_table(models.plain),),
        notes=(
            explained(),
            "The artifact's prefill of 256 tokens (121.4 ms) is left out: it was the first batch of its run, and took "
            "longer than that of 512.",
            "The artifact's own times differ between runs: four decodes took 48.8 ms in figure 2, 68.1 ms in table 2.",
        ),
    )


def _rows() -> dict[str, Published]:
    """Return what was published, by name."""
    curves = [*curve_of(decodes=False), *curve_of(decodes=True)]
    return {row.label: row for row in curves} | {f"{row.label}, table 2": row for row in parted_rows()}


def _findings(rows: Mapping[str, Published], models: Models) -> Iterator[Finding]:
    for name, row in rows.items():
        source = "artifact, table 2" if row.attention_s is not None else "artifact, figure 2"
        ours = 1e3 * models.plain.iteration_time(row.batch)
        found = Finding(name=name, published=1e3 * row.total_s, ours=ours, unit="ms", source=source)
        if found.missed:
            like = [each for each in rows.values() if _kind(each) == _kind(row)]
            found = replace(found, cause=CAUSES[_kind(row)], reason=_reason(like, models))
        yield found


def _reason(rows: Sequence[Published], models: Models) -> str:
    """Say of iterations of one kind where the time went, by the artifact's own parts, and what is left with all that
    changed."""
    parted = next(row for row in rows if row.attention_s is not None)
    theirs_ms, ours_ms = _beside_kernels_ms(parted, models.plain)
    *_, last = models.on(parted)
    left = [100 * (models.on(row)[last].iteration_time(row.batch) / row.total_s - 1) for row in rows]
    attention = " and their attention of whole prompts" * (not parted.batch.decodes)
    deviate = f"it deviates by {left[0]:+.0f} %"
    if len(left) > 1:
        deviate = f"all of this kind, missed or not, deviate by {min(left):+.0f} to {max(left):+.0f} %"
    return (
        f"Of the {1e3 * parted.total_s:.1f} ms of {parted.label} in the artifact's table 2, {theirs_ms:.1f} are "
        f"neither linear layers nor attention, here {ours_ms:.1f}; the rest must be their engine's own work. With "
        f"their base iteration{attention} {deviate}."
    )


def _kind(row: Published) -> tuple[bool, bool]:
    return bool(row.batch.chunks), bool(row.batch.decodes)


def _beside_kernels_ms(row: Published, model: CostModel) -> tuple[float, float]:
    """Return what is neither linear layers nor attention, as published and here."""
    parts = model.op_times(row.batch)
    ours_s = parts["matrices"] + parts["prefill attention"] + parts["decode attention"]
    theirs_s = row.total_s - (row.linear_s or 0.0) - (row.attention_s or 0.0)
    return 1e3 * theirs_s, 1e3 * (model.iteration_time(row.batch) - ours_s)


def _parts_table(model: CostModel) -> Table:
    lines = []
    for row in parted_rows():
        parts, rest_ms = model.op_times(row.batch), _beside_kernels_ms(row, model)
        ours_s = parts["prefill attention"] + parts["decode attention"]
        pairs = ((row.linear_s or 0.0, parts["matrices"]), (row.attention_s or 0.0, ours_s))
        values = (*(1e3 * part for pair in pairs for part in pair), *rest_ms)
        lines.append((row.label, *(f"{value:.1f}" for value in values)))
    parts_of = [f"{part}, {whose}" for part in ("linear", "attention", "all else") for whose in ("published", "ours")]
    return Table(title="Where the time goes (ms)", head=("batch", *parts_of), rows=tuple(lines))


EXPERIMENT = Experiment(
    name="yi-iterations",
    title="The shipped iteration times of Yi-34B",
    paper=SARATHI_SERVE,
    shows="Prefills saturate the GPUs from 512 tokens on, while a decode costs an iteration whatever the batch.",
    about_s=1,
    plan=plan,
)
