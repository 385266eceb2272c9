"""The server keeps to its own OpenAPI document, whatever is sent."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis import Case
from schemathesis.checks import CHECKS

from tests.engine.server.http_double import FakeClient, listening

LOST = {"positive_data_acceptance"}
"""What does not fit into the context, or is no token of the model, is refused though the document cannot say so."""


@pytest.fixture(scope="module")
def document() -> Iterator[schemathesis.BaseSchema]:
    with listening(FakeClient()) as url:
        yield schemathesis.openapi.from_url(f"{url}/openapi.json")


schema = schemathesis.pytest.from_fixture("document")
checks = [check for name in CHECKS.get_all_names() if name not in LOST for check in CHECKS.get_by_names([name])]


@schema.parametrize()
@settings(
    max_examples=25, deadline=None, derandomize=True, phases=(Phase.generate,), suppress_health_check=list(HealthCheck)
)
def test_no_answer_is_other_than_documented(case: Case) -> None:
    case.call_and_validate(checks=checks)
