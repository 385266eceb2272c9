"""Capacity of Orca, vLLM and Sarathi-Serve, a model an experiment (OSDI 2024, section 5.1, figures 10 and 11)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from simulator.paper.basis import basis
from simulator.paper.experiment import SARATHI_SERVE as PAPER
from simulator.paper.experiment import Experiment, Findings, Table
from simulator.paper.serving.capacity_figure import capacity_panel
from simulator.paper.serving.claim import Claim, judged
from simulator.paper.serving.grid import Cell, Grid, find_grid
from simulator.paper.serving.setup import (
    CHAT,
    FALCON_180B,
    GENERATED,
    LLAMA2_70B,
    MISTRAL_7B,
    ORCA,
    RELAXED,
    REQUESTS,
    SARATHI_SERVE,
    STRICT,
    TITLES,
    VLLM,
    YI_34B,
    Setup,
)
from simulator.trials.plan import Plan, side_by_side

Others = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class CapacityExperiment:
    """The capacities of one model, what the paper claims of them, and what else is run as evidence.

    Attributes
    ----------
    claims
        Published ratios.
    variants
        What is changed, in words -> keywords of :func:`simulator.paper.serving.grid.find_grid` with it, given the
        experiment's folder. Run for what is claimed alone.
    why
        What the changes mean, and what they leave open.
    """

    name: str
    setup: Setup
    claims: tuple[Claim, ...]
    variants: Mapping[str, Callable[[Path], Others]]
    why: str

    def plan(self, scratch: Path, *, requests: int = REQUESTS) -> Plan[Findings]:
        """Return the plan that finds all capacities, those with a change too."""
        plans: dict[str, Plan[dict[Cell, Any]]] = {"": find_grid(self.setup, requests=requests)}
        for what, others in self.variants.items():
            plans[what] = find_grid(self.setup, **{"requests": requests, **self._claimed, **others(scratch)})
        changed = yield from side_by_side(plans)
        grid = changed.pop("")
        findings, changes = judged(self.claims, grid, changed, self.why)
        return Findings(
            findings=findings,
            changes=changes,
            panels=(capacity_panel(f"serving-{self.name}", self.setup, grid, self.claims),),
            stands_on=(basis(self.setup.deployment),),
            tables=(capacity_table(grid),),
            notes=(GENERATED, SEARCHED),
        )

    @property
    def _claimed(self) -> dict[str, Sequence[str]]:
        """Which capacities the claims need."""
        return {
            "datasets": list(dict.fromkeys(claim.dataset for claim in self.claims)),
            "asked": list(dict.fromkeys(claim.target for claim in self.claims)),
            "systems": [SARATHI_SERVE, *dict.fromkeys(claim.over for claim in self.claims)],
        }


SEARCHED = (
    "Each capacity is of one draw of 2,048 requests, the same for all systems; its interval is the bracket in which "
    "the search ended (2.5 %), and does not say how much other requests would change it. As in the paper the latencies "
    "of the run alone decide: a rate at which the queue grows slowly counts as long as half the requests start within "
    "2 s."
)


def capacity_table(grid: Grid) -> Table:
    """Return all capacities with their brackets, and what ends each."""
    rows = tuple(
        (
            TITLES[cell.dataset],
            cell.target,
            TITLES[cell.system],
            f"{found.rate_per_s:.3f}",
            f"{found.low_per_s:.3f} to {found.high_per_s:.3f}",
            found.bound_by,
        )
        for cell, found in sorted(grid.items())
    )
    head = ("dataset", "target", "system", "capacity (requests/s)", "held and failed at", "ends by")
    return Table(title="Capacities", head=head, rows=rows)


def _experiment(capacity: CapacityExperiment, *, model: str, gains: str, about_s: int) -> Experiment:
    return Experiment(
        name=capacity.name,
        title=f"Capacity of {model}",
        paper=PAPER,
        shows=f"{model} within a latency target: Sarathi-Serve serves {gains}.",
        about_s=about_s,
        plan=partial(CapacityExperiment.plan, capacity),
    )
