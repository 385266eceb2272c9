"""Where experiments are carried out: side by side, each with a folder of its own that is gone afterwards."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from simulator.paper.experiment import Experiment, Findings
from simulator.paper.progress import Watch
from simulator.paper.result import Result
from simulator.trials.crew import Crew, carry_out_all
from simulator.trials.plan import Plan


def carry_out_experiments(experiments: Sequence[Experiment], crew: Crew, watch: Watch) -> tuple[Result, ...]:
    """Carry out experiments and return what they found, in their order.

    Those that take longest begin first, so that none is left to run alone at the end; what is found does not depend
    on that.

    Raises
    ------
    InputError
        If one of them cannot be carried out.
    """
    with TemporaryDirectory(prefix="charioteer-paper-") as scratch:
        longest_first = sorted(experiments, key=lambda each: -each.about_s)
        plans = {each.name: _watched(each, Path(scratch) / each.name, watch) for each in longest_first}
        found = carry_out_all(plans, crew)
    return tuple(Result(experiment=each, found=found[each.name]) for each in experiments)


def _watched(experiment: Experiment, folder: Path, watch: Watch) -> Plan[Findings]:
    watch.began(experiment.name)
    folder.mkdir()
    found = yield from experiment.plan(folder)
    shutil.rmtree(folder)
    watch.over(experiment.name)
    return found
