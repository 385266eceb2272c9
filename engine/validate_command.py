"""What ``validate`` does: check, measure, let it be judged, print."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from math import inf
from pathlib import Path

from engine.machine import beside_profiler, check_budget
from engine.progress import share_bar
from engine.session import EngineSettings, build_runner
from engine.validation import MARKER, WRITTEN, Plan, Trial, find_judge
from policies.catalog import PolicyChoice
from policies.selection import parse_policies
from traces.command_line import new_console
from traces.errors import InputError
from traces.files import whole_folder
from traces.source import open_workload
from traces.workload import Workload

RATE_PER_S = 1.0
"""Of a workload that has no arrival times: only how its gaps relate counts."""


@dataclass(frozen=True, kw_only=True)
class ValidationSettings:
    """What a person asked of ``validate``; each field is the option of that name."""

    workload: str
    output: Path
    policies: str
    loads: str
    num_prompts: int | None = None
    length_scale: float = 1.0
    burstiness: float = 1.0
    sort: bool = False
    budget: float = 60.0

    def __post_init__(self) -> None:
        check_budget(self.budget)
        if not self.length_scale > 0:
            raise InputError(f"is {self.length_scale:g}", where="--length-scale", expected="more than 0")


def validate(settings: EngineSettings, asked: ValidationSettings, *, as_json: bool = False) -> None:
    """Measure this machine and the workload on it, simulate the same, and print and write how close that comes.

    Raises
    ------
    InputError
        If anything asked for is wrong; nothing is written then.
    """
    judge = find_judge()
    loads = parse_loads(asked.loads)
    limits = {"max_num_seqs": settings.max_num_seqs, "max_num_batched_tokens": settings.max_num_batched_tokens}
    choices = parse_policies(asked.policies, settings=limits)
    workload = _workload(asked, settings.seed)
    with whole_folder(asked.output, marker=MARKER, is_ours=lambda entry: entry.name in WRITTEN) as folder:
        longest = int(workload.total_tokens.max())
        runner = build_runner(beside_profiler(settings), _largest(choices), longest=longest, others=choices.values())
        plan = Plan(
            workload=workload,
            choices=choices,
            loads=loads,
            model=settings.model,
            seed=settings.seed,
            budget_s=asked.budget,
        )
        command = shlex.join(["python", "-m", "engine", *sys.argv[1:]])
        with share_bar() as progress:
            judged, found = Trial(runner, plan, folder, progress).judged_by(judge, command)
    if as_json:
        print(json.dumps(found.as_dict(), indent=2))
        return
    judged.show(found, console=new_console())
    print(f"Report: {asked.output / 'report.html'}")


def parse_loads(text: str) -> dict[str, float]:
    """Return the loads that ``--loads`` names, as shares of what is sustained.

    Raises
    ------
    InputError
        If ``text`` is not ``name:share,...``, with names that can be folders, once each.
    """
    loads: dict[str, float] = {}
    for item in text.split(","):
        name, colon, share = item.strip().partition(":")
        if not (colon and name.isidentifier() and name not in loads and _positive(share)):
            wish = "names with shares of the sustained rate: below:0.5,near:0.9,above:1.5"
            raise InputError(f"load {item.strip()!r}", where="--loads", expected=wish)
        loads[name] = float(share)
    return loads


def _positive(text: str) -> bool:
    try:
        return 0 < float(text) < float("inf")
    except ValueError:
        return False


def _workload(asked: ValidationSettings, seed: int) -> Workload:
    opened = partial(
        open_workload,
        asked.workload,
        num_prompts=asked.num_prompts,
        burstiness=asked.burstiness,
        seed=seed,
        sort=asked.sort,
    )
    workload = opened()
    if workload.rate_per_s == inf:
        workload = opened(request_rate=RATE_PER_S)
    if workload.rate_per_s == inf:
        raise InputError("requests that all arrive at once", where=asked.workload, expected="two arrival times")
    return workload.shortened(asked.length_scale)


def _largest(choices: Mapping[str, PolicyChoice]) -> PolicyChoice:
    """Return the policy with the most residents: its KV cache is large enough for all."""
    return max(choices.values(), key=lambda choice: choice.settings.max_num_seqs)
