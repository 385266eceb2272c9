"""What ``profile`` does: the measurements that a search on this engine stands on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from engine.machine import Machine, beside_profiler, check_budget
from engine.progress import share_bar
from engine.replay import deployment_of
from engine.session import EngineSettings, build_runner, policy_choice
from profiler.profile import profile_folder
from profiler.profile_table import print_profile, summary
from traces.command_line import new_console


@dataclass(frozen=True, kw_only=True)
class ProfileSettings:
    """What a person asked of ``profile``; each field is the option of that name."""

    output: Path
    budget: float = 60.0

    def __post_init__(self) -> None:
        check_budget(self.budget)


def profile_engine(settings: EngineSettings, asked: ProfileSettings, *, as_json: bool = False) -> None:
    """Measure this machine through the engine, write a profile and print what is in it.

    Raises
    ------
    InputError
        If anything asked for is wrong; nothing is written then.
    """
    choice = policy_choice(settings)
    with profile_folder(asked.output) as write:
        runner = build_runner(beside_profiler(settings), choice, longest=settings.max_model_len)
        placed = deployment_of(runner, [choice], settings.model)
        machine = Machine(runner, placed, sequences=placed.max_num_seqs)
        with share_bar() as progress:
            machine.measure(asked.budget, progress)
        profile = machine.measurement.profile()
        write(profile)
    if as_json:
        print(json.dumps({"output": str(asked.output), **summary(profile)}, indent=2))
    else:
        print_profile(new_console(), profile, asked.output)
