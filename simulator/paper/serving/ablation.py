"""Table 4: hybrid batches without chunks, chunks without hybrid batches, and both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from statistics import median

import numpy as np

from policies.catalog import choose
from simulator.paper.basis import basis
from simulator.paper.experiment import SARATHI_SERVE, Change, Experiment, Finding, Findings, Table
from simulator.paper.serving.ablation_figure import ablation_panel
from simulator.paper.serving.ablation_table import CHUNKED, HYBRID, METRICS, POLICIES, PUBLISHED, TTFT, Cell
from simulator.paper.serving.authors_engine import curve_of, explained, profile_with_base, told
from simulator.paper.serving.setup import CHAT, DATASETS, GENERATED, SEQUENCES, SUMMARIZATION, YI_34B, demand
from simulator.trials.candidate import Candidate
from simulator.trials.outcome import Outcome
from simulator.trials.plan import Answer, Plan
from simulator.trials.trial import Trial

REQUESTS = 128
BUDGET, SCRIPT_BUDGET = 1024, 512
"""Token budget by the paper, and by the artifact's script (osdi-experiments/table-6)."""
RATES_PER_S = {CHAT: 1.0, SUMMARIZATION: 0.5}
"""Of the same script; the paper does not say any."""
SEEDS = range(5)
MEDIAN_PROMPT = 7059
"""Of arXiv summarisation (table 2 of the paper)."""
SCRIPT = f"a budget of {SCRIPT_BUDGET}, as the artifact's script has it"
Draws = Mapping[Cell, Sequence[float]]
"""A figure of the table for each seed."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """What the policies run with.

    Attributes
    ----------
    budget
        Tokens of a batch, where a policy has chunks.
    profile
        Path of one that says otherwise of the engine; None: as predicted everywhere.
    """

    budget: int = BUDGET
    profile: str | None = None

    def candidate(self, policy: str, dataset: str) -> Candidate:
        """Return a policy on the paper's machine."""
        settings = {} if policy == HYBRID else {"max_num_batched_tokens": self.budget}
        return YI_34B.candidate(choose(policy, max_num_seqs=SEQUENCES, **settings), dataset, profile=self.profile)

    def trials(self) -> list[Trial]:
        """Return the runs of the table, those of a dataset and policy next to each other."""
        return [
            Trial(
                candidate=self.candidate(policy, dataset),
                demand=demand(dataset, REQUESTS),
                rate_per_s=RATES_PER_S[dataset],
                seed=seed,
            )
            for dataset, policy, seed in product(DATASETS, POLICIES, SEEDS)
        ]


def plan(scratch: Path) -> Plan[Findings]:
    """Run each policy on both datasets, as the paper says, and with one thing changed."""
    variants = {
        "": Variant(),
        SCRIPT: Variant(budget=SCRIPT_BUDGET),
        told(): Variant(profile=profile_with_base(YI_34B.deployment, scratch)),
    }
    asked = [variant.trials() for variant in variants.values()]
    answers = yield [trial for trials in asked for trial in trials]
    size = len(asked[0])
    found = {what: _draws(answers[size * at : size * (at + 1)]) for at, what in enumerate(variants)}
    draws, changed = found.pop(""), {what: _medians(each) for what, each in found.items()}
    ours, why = _medians(draws), _of_first_tokens(draws, changed[SCRIPT])
    return Findings(
        findings=tuple(_finding(cell, ours, why) for cell in PUBLISHED),
        panels=(ablation_panel(ours, changed[SCRIPT], budgets=(BUDGET, SCRIPT_BUDGET)),),
        stands_on=(basis(YI_34B.deployment),),
        changes=tuple(
            Change(finding=cell.name, what=what, ours=values[cell])
            for cell in PUBLISHED
            for what, values in changed.items()
            if cell.policy != HYBRID or what != SCRIPT
        ),
        tables=(_draws_table(draws),),
        notes=(
            f"Medians of {len(SEEDS)} draws of {REQUESTS} requests. Chat comes at {RATES_PER_S[CHAT]:g} request/s and "
            f"arXiv at {RATES_PER_S[SUMMARIZATION]:g}: the rates of the artifact's script, the paper names none.",
            GENERATED,
            explained(),
        ),
    )


def _draws(answers: Sequence[Answer]) -> dict[Cell, list[float]]:
    found: dict[Cell, list[float]] = {}
    for at, (dataset, policy) in enumerate(product(DATASETS, POLICIES)):
        outcomes = [each for each in answers[at * len(SEEDS) : (at + 1) * len(SEEDS)] if isinstance(each, Outcome)]
        found |= {Cell(dataset, policy, metric): [each.metrics[metric] for each in outcomes] for metric in METRICS}
    return found


def _medians(draws: Draws) -> dict[Cell, float]:
    return {cell: median(values) for cell, values in draws.items()}


def _finding(cell: Cell, ours: Mapping[Cell, float], of_first_tokens: str) -> Finding:
    found = Finding(name=cell.name, published=PUBLISHED[cell], ours=ours[cell], unit="s", source="table 4")
    if not found.missed:
        return found
    cause, reason = ("which requests were drawn", of_first_tokens) if cell.metric == TTFT else _of_gaps(cell)
    return replace(found, cause=cause, reason=reason)


def _of_first_tokens(draws: Draws, smaller: Mapping[Cell, float]) -> str:
    """Return why median TTFTs deviate, from draws of the requests and the medians with the smaller budget."""
    reach = {cell: (min(values), max(values)) for cell, values in draws.items() if cell.metric == TTFT}
    inside = sum(least <= PUBLISHED[cell] <= most for cell, (least, most) in reach.items())
    alone = smaller[Cell(SUMMARIZATION, CHUNKED, TTFT)]
    return (
        f"A median TTFT hangs on the draw of the {REQUESTS} requests: {inside} of {len(reach)} published ones lie "
        f"within the reach of {len(SEEDS)} draws. The other changes overshoot; against the script's budget, which the "
        f"P99 TBT speak for, speaks that chunks only then take {alone:.1f} s on arXiv."
    )


def _of_gaps(cell: Cell) -> tuple[str, str]:
    """Return why a P99 TBT deviates, in a few words and in sentences."""
    if cell.policy == HYBRID:
        return (
            "not explained: shorter than a median prompt took their engine",
            f"No change explains it. By the artifact's figure 2 a prompt of {MEDIAN_PROMPT:,} tokens, the median of "
            f"the dataset, takes {_whole_s(MEDIAN_PROMPT):.1f} s whole: longer than this P99.",
        )
    return (
        f"the table seems to be of the artifact's budget of {SCRIPT_BUDGET}",
        f"By the artifact's figure 2 a batch of {BUDGET:,} tokens takes {1e3 * _whole_s(BUDGET):.0f} ms, longer than "
        "any of these: the table seems to be of the script's budget.",
    )


def _draws_table(draws: Draws) -> Table:
    rows = tuple(
        (cell.name, *(f"{each:.2f}" for each in (min(values), median(values), max(values), PUBLISHED[cell])))
        for cell, values in draws.items()
    )
    return Table(
        title=f"{len(SEEDS)} draws of the requests (s)",
        head=("figure", "least", "median", "most", "published"),
        rows=rows,
    )


def _whole_s(tokens: int) -> float:
    """Return what a prompt took the authors' engine whole, between two published times in proportion."""
    rows = curve_of(decodes=False)
    return float(np.interp(tokens, [row.batch.prefill_tokens for row in rows], [row.total_s for row in rows]))


EXPERIMENT = Experiment(
    name="ablation",
    title="Table 4: hybrid batches and chunks, each alone and together",
    paper=SARATHI_SERVE,
    shows="Hybrid batches alone stall decodes behind prompts, chunks alone delay prompts; together they do neither.",
    about_s=4,
    plan=plan,
)
