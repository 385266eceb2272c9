"""The figures of the validation's report, in the order in which it shows them."""

from __future__ import annotations

from collections.abc import Sequence

from simulator.figure_style import Panel
from simulator.validation.distributions import distribution_panel
from simulator.validation.error_figure import error_panel
from simulator.validation.iteration_figure import iteration_panel
from simulator.validation.judgement import Trial
from simulator.validation.metric_figure import metric_panel
from simulator.validation.validation import Validation


def panels(validation: Validation, trials: Sequence[Trial]) -> list[Panel]:
    """Return the figures of a validation."""
    return [
        iteration_panel(trials),
        metric_panel(validation),
        distribution_panel(trials),
        error_panel(trials),
    ]
