"""Designed iterations run on the engine as they were designed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

pytest.importorskip("torch", reason="the engine needs torch")

from engine.engine import Engine, Iteration
from engine.iterations import EngineIterations, engine_iterations
from profiler.grid import Grid
from profiler.iteration import DECODES, DesignedBatch, decode_contexts, design_iterations
from profiler.kernels import OpShape
from profiler.model import load_model
from traces.errors import InputError

GRID = Grid(tokens=40, sequences=6, context=60, edge=8, kv_tokens=0)
SHAPES = design_iterations(load_model("llama-60m"), GRID, kv_tokens=400, count=32)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape.kind}-{shape.m}")
def test_the_engine_runs_the_batch_that_was_designed(
    make_engine: Callable[..., Engine], shape: OpShape, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Iteration] = []
    held: list[list[int]] = []
    step = Engine.step

    def noting(self: Engine, start_s: float | None = None) -> Iteration | None:
        decodes = self.policy.decodes
        held.append(sorted(sequence.computed + 1 for sequence in decodes))
        iteration = step(self, start_s)
        assert iteration is not None
        seen.append(iteration)
        return iteration

    monkeypatch.setattr(Engine, "step", noting)
    timed = EngineIterations(make_engine(blocks=200).runner)
    times_s = timed.seconds(timed.prepare(shape), 2)
    assert all(time_s > 0 for time_s in times_s)
    designed = DesignedBatch(shape)
    for iteration, contexts in zip(seen, held, strict=True):
        batch = iteration.batch
        assert [(chunk.tokens, chunk.past) for chunk in batch.chunks] == [(c.tokens, c.past) for c in designed.chunks]
        assert contexts == decode_contexts(shape)
        for name in ("prefill_tokens", "decodes", "outputs", "decode_context_sum", "decode_context_max"):
            assert getattr(batch, name) == getattr(designed, name), name
    engine = timed._engine
    assert not engine.has_work
    assert engine.policy.pool.used == 0


def test_an_engine_is_made_with_room_for_the_largest_batch() -> None:
    grid = Grid(tokens=64, sequences=4, context=128, edge=64, kv_tokens=512)
    shapes = design_iterations(load_model("llama-60m"), grid, count=4)
    shapes.append(OpShape(op="iteration", kind=DECODES, m=3, decodes=3, decode_context=80))
    timed = engine_iterations("llama-60m", shapes, device="cpu", dtype="float32")
    for shape in shapes:
        assert timed.seconds(timed.prepare(shape), 1)[0] > 0


def test_a_model_that_is_not_there_is_an_input_error() -> None:
    with pytest.raises(InputError, match="no-such-model"):
        engine_iterations("no-such-model", SHAPES, device="cpu", dtype="float32")
