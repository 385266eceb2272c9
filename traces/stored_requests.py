"""The requests of a run record, read and looked at."""

from __future__ import annotations

from typing import Any

import numpy as np

from traces.column_source import ColumnSource
from traces.run_checks import Check
from traces.run_columns import RequestColumns, RunMeta
from traces.run_schema import REQUEST_TYPES


def stored_requests(source: ColumnSource, meta: RunMeta) -> RequestColumns:
    """Return the requests of a table, of one of an older schema version as if it were of this.

    Raises
    ------
    InputError
        If a value is missing or cannot be, with its row and column.
    """
    columns = {name: source.numbers(name) for name in source.types}
    missing: dict[str, Any] = {name: np.zeros(len(source), kind) for name, kind in REQUEST_TYPES.items()}
    missing["decode_replica"] = columns["replica"]
    made = RequestColumns(**missing | columns)
    _check(made, meta, Check(source.where))
    return made


def _check(made: RequestColumns, meta: RunMeta, check: Check) -> None:
    check.finite(made.arrival_s, "arrival_s")
    check.ascending(made.arrival_s, "arrival_s")
    before = made.arrival_s
    for name in ("scheduled_s", "first_token_s", "finished_s"):
        check.after(getattr(made, name), before, name)
        before = getattr(made, name)
    for name in ("replica", "decode_replica"):
        check.replica(getattr(made, name), name, meta.replicas)
    for name in ("prompt_tokens", "output_tokens"):
        check.whole(getattr(made, name), name, 1)
    for name in ("generated_tokens", "cached_tokens", "preemptions", "restarts"):
        check.whole(getattr(made, name), name)
    for name in ("transfer_s", "bubble_s"):
        check.seconds(getattr(made, name), name)
