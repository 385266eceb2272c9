"""The engine of the paper, its memory, and its linear layers as they were published."""

from __future__ import annotations

import pytest

from profiler.aggregates import Aggregates
from profiler.overhead import LAUNCH_GAP_S, OVERHEAD_S
from profiler.published import published_for
from simulator.paper.sarathi.batch_limit import by_formula, fits, largest_batch
from simulator.paper.sarathi.engine import Engine
from simulator.paper.sarathi.published_linears import PublishedLinears

DECODES = Aggregates.of(decodes=4, context=1024)


def test_an_eager_engine_pays_for_every_launch_and_for_nothing_else() -> None:
    """Forty layers of four matrices, attention, norms, activation and rotation, with the embedding and a last norm."""
    eager, graphs = Engine().costs.breakdown(DECODES), Engine(eager=False).costs.breakdown(DECODES)
    launches = eager.pop("overhead") / LAUNCH_GAP_S
    assert launches == pytest.approx(round(launches))
    assert 40 * (4 + 1 + 4) <= launches <= 40 * (4 + 1 + 7)
    assert graphs.pop("overhead") == OVERHEAD_S
    assert eager == graphs


def test_the_formula_divides_what_the_weights_leave() -> None:
    deployment = Engine().deployment
    token = 2 * 2 * 40 * 5120
    free = deployment.hardware.memory_bytes - deployment.stage_memory[0].weights
    assert by_formula(deployment, 1024) == int(free / (1024 * token)) == 29


@pytest.mark.parametrize("length", [1024, 2048, 3072])
def test_the_largest_batch_is_the_last_that_fits(length: int) -> None:
    deployment = Engine().deployment
    largest = largest_batch(deployment, length)
    assert fits(deployment, largest, length)
    assert not fits(deployment, largest + 1, length)
    assert largest < by_formula(deployment, length)


def test_nothing_fits_where_the_weights_do_not() -> None:
    assert largest_batch(Engine(model="llama-33b").deployment, 1024) == 0


@pytest.mark.parametrize("row", published_for("llama-13b", "a6000", 1), ids=lambda row: row.label)
def test_published_linears_take_as_long_as_published(row: object) -> None:
    parts = PublishedLinears().breakdown(row.batch)  # type: ignore[attr-defined]
    rest_s = sum(parts.values()) - parts["prefill attention"] - parts["decode attention"]
    if row.attention_s is None:  # type: ignore[attr-defined]
        assert sum(parts.values()) == pytest.approx(row.total_s)  # type: ignore[attr-defined]
    elif row.label != "prefill 1021 + decode 3":  # type: ignore[attr-defined]
        assert rest_s == pytest.approx(row.linear_s)  # type: ignore[attr-defined]
    else:
        assert rest_s == pytest.approx(row.linear_s, rel=0.01)  # type: ignore[attr-defined]


def test_published_linears_leave_attention_as_it_is() -> None:
    ours, theirs = Engine().costs.breakdown(DECODES), PublishedLinears().breakdown(DECODES)
    changed = {name for name in ours if ours[name] != theirs[name]}
    assert changed == {"linear"}
    assert PublishedLinears().iteration_time(DECODES) == pytest.approx(sum(theirs.values()))
