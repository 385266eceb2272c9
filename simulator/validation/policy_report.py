"""The validation of a search's prediction as one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from os import PathLike

from simulator.report import figure_html
from simulator.report_page import page
from simulator.validation.policy_figure import interval_panel
from simulator.validation.policy_sheet import order_sheet, policy_provenance_rows, setting_sheet
from simulator.validation.policy_validation import PolicyValidation
from simulator.validation.report import MORE_CSS, provenance_html, sheet_html, verdict_html
from traces.files import whole_file

TITLE = "Does the engine do what the search predicted?"


def write_policy_report(path: str | PathLike[str], validation: PolicyValidation) -> None:
    """Write the report; equal validations give equal bytes.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    with whole_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(page(TITLE, _body(validation), css=MORE_CSS))


def _body(validation: PolicyValidation) -> Iterator[str]:
    yield from verdict_html(validation.verdict)
    yield figure_html(interval_panel(validation))
    if validation.preferences:
        yield from sheet_html(order_sheet(validation))
    yield "<h2>All metrics</h2>\n"
    yield '<p class="caption">Amber: not within the predicted interval.</p>\n'
    for setting in validation.settings:
        yield from sheet_html(setting_sheet(setting), level=3)
    policies = {setting.label: setting.policy for setting in validation.settings}
    yield from provenance_html(policy_provenance_rows(validation), policies, validation.provenance["command"])
