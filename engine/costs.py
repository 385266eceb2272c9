"""What a policy on the engine may know of the time that a batch takes."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from engine.replay import deployment_of
from engine.runner import Runner
from policies.catalog import PolicyChoice
from profiler.cost_model import CostModel, load_cost_model


def known_costs(
    runner: Runner, choices: Collection[PolicyChoice], model: str, profile: str | Path | None
) -> CostModel | None:
    """Return the cost model for the policies that ask one; None where none of them does.

    Parameters
    ----------
    model
        The preset, folder or ``config.json`` that the runner's model comes from.
    profile
        A folder of ``python -m profiler`` or of ``engine profile``, or a fit. None: the coefficients that ship with
        the package, of the GPU itself or of its nearest relative.

    Raises
    ------
    InputError
        If a policy asks, and nothing is known of the device, or the profile is broken or of another device.
    """
    asking = [choice for choice in choices if choice.needs_costs]
    for choice in asking:
        choice.check_costs(known=costs_known(runner.device.type, profile))
    return load_cost_model(deployment_of(runner, choices, model), profile=profile) if asking else None


def costs_known(device: str, profile: str | Path | None) -> bool:
    """Whether there can be a cost model: CPUs are too unlike each other for one to ship."""
    return profile is not None or not device.startswith("cpu")
