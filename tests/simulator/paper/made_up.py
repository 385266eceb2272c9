"""Small experiments, real ones: two iterations of SARATHI's table 2, and a chat workload under two policies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import plotly.graph_objects as go

from policies.catalog import choose
from profiler.cost_model import load_cost_model
from profiler.deployment import Deployment
from profiler.published import Published, published_for
from simulator.figure_style import INK, PALETTE, Panel, style
from simulator.paper import options
from simulator.paper.basis import basis
from simulator.paper.experiment import BEYOND, SARATHI, Change, Experiment, Finding, Findings, Table
from simulator.paper.session import run_papers
from simulator.trials.candidate import Candidate
from simulator.trials.outcome import Outcome
from simulator.trials.plan import Plan
from simulator.trials.trial import Trial
from traces.command_line import new_app, run
from traces.demand import Demand

DEPLOYMENT = Deployment(model="llama-13b", device="a6000", max_model_len=2048)
GAP_S = 4e-3
CHAT = Demand(source="chat", num_prompts=12)
POLICIES = ("vllm", "sarathi-serve")


def iterations(scratch: Path) -> Plan[Findings]:
    yield from ()
    (scratch / "notes").write_text("a folder of its own")
    model = load_cost_model(DEPLOYMENT)
    rows = published_for("llama-13b", "a6000", 1)[:3]
    ours_ms = [1e3 * model.iteration_time(row.batch) for row in rows]
    return Findings(
        findings=tuple(finding(row, time_ms) for row, time_ms in zip(rows, ours_ms, strict=True)),
        panels=(panel(rows, ours_ms),),
        stands_on=(basis(DEPLOYMENT),),
        changes=(
            Change(finding=rows[1].label, what="kernels launched one by one", ours=ours_ms[1] + 1e3 * GAP_S),
            Change(finding=rows[2].label, what="kernels launched one by one", ours=ours_ms[2] + 1e3 * GAP_S),
        ),
        notes=("Contexts are 1,024 tokens; nothing_is *known* of | others.",),
    )


def finding(row: Published, ours_ms: float) -> Finding:
    decodes = row.label == "decode 4"
    return Finding(
        name=row.label,
        published=round(1e3 * row.total_s, 2),
        ours=ours_ms,
        unit="ms",
        source="table 2",
        limit=0.01 if decodes else 0.15,
        headline=not decodes,
        reason="their kernels are launched one by one." if decodes else "",
    )


def panel(rows: Sequence[Published], ours_ms: list[float]) -> Panel:
    labels = [row.label for row in rows]
    published_ms = [1e3 * row.total_s for row in rows]
    open_marker = {"color": INK, "symbol": "circle-open", "size": 10}
    bars = go.Bar(name="here", x=labels, y=ours_ms, marker={"color": PALETTE[0]})
    points = go.Scatter(name="published", x=labels, y=published_ms, mode="markers", marker=open_marker)
    figure = style(go.Figure([bars, points]), height=480, yaxis_title="time of an iteration (ms)")
    caption = "Three decodes cost 4 ms beside a prefill, & far more alone."
    return Panel(name="made-up-iterations", title="Iterations <13B>", caption=caption, figure=figure)


def chat(scratch: Path) -> Plan[Findings]:
    assert not any(scratch.iterdir())
    trials = [
        Trial(
            candidate=Candidate(choice=choose(name), model="mistral-7b", device="a100-sxm", max_model_len=CHAT.longest),
            demand=CHAT,
            rate_per_s=2.0,
        )
        for name in POLICIES
    ]
    outcomes = yield trials
    shown = [f"{1e3 * each.metrics['TBT P99']:.1f}" for each in outcomes if isinstance(each, Outcome)]
    return Findings(
        findings=(),
        panels=(),
        stands_on=("Mistral-7B on an A100.",),
        tables=(Table(title="P99 TBT", head=("policy", "ms"), rows=tuple(zip(POLICIES, shown, strict=True))),),
    )


EXPERIMENTS = (
    Experiment(
        name="made-up-iterations",
        title="Three iterations",
        paper=SARATHI,
        shows="Decodes beside a prefill are all but free.",
        about_s=1,
        plan=iterations,
    ),
    Experiment(name="made-up-chat", title="Chat today", paper=BEYOND, shows="Stalls are gone.", about_s=120, plan=chat),
)


def main() -> None:
    """``python -m tests.simulator.paper.made_up [--all] [NAME]...``: the command with these experiments."""
    app = new_app("Experiments that are made up.")

    @app.command()
    def paper(
        names: options.Names = None,
        everything: options.All = False,
        output: options.Output = Path("out/paper"),
        json: options.Json = False,
    ) -> None:
        run_papers(names or [], everything, output, as_json=json, experiments=EXPERIMENTS)

    run(app, "python -m tests.simulator.paper.made_up")


if __name__ == "__main__":
    main()
