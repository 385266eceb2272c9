"""Which experiments a person asked for."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

from simulator.paper.experiment import Experiment
from traces.errors import InputError

NEAREST = 3


def chosen(names: Sequence[str], everything: bool, experiments: Sequence[Experiment]) -> tuple[Experiment, ...]:
    """Return the experiments of these names, or all, in the order of the papers; none where nothing is asked for.

    Raises
    ------
    InputError
        If there is none of a name, or names stand beside ``everything``.
    """
    if everything and names:
        raise InputError(f"{', '.join(names)} stands beside it", where="--all", expected="names, or --all")
    known = [experiment.name for experiment in experiments]
    for name in names:
        if name not in known:
            raise InputError(f"no experiment is called {name!r}", expected=_expected(name, known))
    return tuple(each for each in experiments if everything or each.name in names)


def command_of(names: Sequence[str], everything: bool, experiments: Sequence[Experiment]) -> str:
    """Return the command that runs the same again."""
    what = ["--all"] if everything else [each.name for each in chosen(names, everything, experiments)]
    return " ".join(("python -m simulator paper", *what))


def _expected(name: str, known: Sequence[str]) -> str:
    near = get_close_matches(name.lower(), known, n=NEAREST, cutoff=0.4)
    near = near or [each for each in known if name.lower() in each][:NEAREST]
    listing = "`python -m simulator paper` lists them"
    return f"{' or '.join(near)} ({listing})" if near else f"another name ({listing})"
