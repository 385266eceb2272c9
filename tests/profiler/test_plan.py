"""The measuring plan on a synthetic machine: formulas with cliffs, noise, and a clock of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np
import pytest

from profiler.candidates import EDGE, LONGEST, MIXED, SPACE_FILLING, Candidates, grouped, op_candidates
from profiler.device import load_device
from profiler.grid import cpu_grid, design
from profiler.kernels import Machine, OpShape
from profiler.measure import Measurement
from profiler.model import load_model
from profiler.plan import LEAST_SURE, REPEAT, MeasuringPlan, visit_noise
from profiler.surrogate import Surrogate
from traces.errors import InputError

MODEL = load_model("llama-60m")
GRID = cpu_grid(MODEL)
PREPARING_S = 2e-4


def true_s(shape: OpShape) -> float:
    """Products lose and win at 200 and 700 tokens, chunks at 96, decodes at contexts of 200 and 600."""
    prefill_s = decode_s = 0.0
    if shape.op in ("copy", "read"):
        return 1e-6 + shape.size_bytes / 2e10
    if shape.op == "gemm":
        tiles = math.ceil(shape.m / 64) * math.ceil(shape.n / 128)
        rate = 2e11 * (0.35 if shape.m <= 200 else 0.8 if shape.m <= 700 else 0.55)
        moved = 4 * (shape.n * shape.k + shape.m * (shape.n + shape.k))
        return 4e-6 + max(tiles * 2 * 64 * 128 * shape.k / rate, moved / 1.5e10)
    if shape.op == "elementwise":
        return 2e-6 + shape.size_bytes / (1.5e10 if shape.size_bytes > 1e6 else 6e10)
    if shape.op != "decode_attention":
        pairs = shape.query_tokens * (shape.past_tokens + shape.query_tokens / 2)
        rate = 1e11 * (0.3 if shape.query_tokens <= 96 else 0.7)
        prefill_s = 5e-6 + 4 * shape.heads * shape.head_dim * pairs / rate
    if shape.op != "prefill_attention":
        mixed = shape.op == "mixed_attention"
        context = shape.decode_context if mixed else shape.past_tokens + 1
        count = shape.decodes if mixed else shape.sequences
        rate = 1.2e10 * (1.0 if context <= 200 else 0.45 if context <= 600 else 0.7)
        decode_s = 5e-6 + 8 * count * context * shape.kv_heads * shape.head_dim / rate
    return prefill_s + decode_s


@dataclass
class Synthetic:
    """A machine on which every visit is off by ``noise``, and every hundredth call takes three times as long."""

    seed: int = 0
    noise: Callable[[OpShape], float] = lambda _: 0.03
    now_s: float = 0.0
    visited: list[OpShape] = field(default_factory=list)
    fused: bool = True

    def __post_init__(self) -> None:
        self._rng = np.random.default_rng(self.seed)

    def machine(self) -> Machine:
        return Machine(device_name="synthetic", is_cpu=True, threads=1, cache_bytes=2**20, memory_bytes=2**30)

    def prepare(self, shape: OpShape) -> Callable[[], object]:
        self.now_s += PREPARING_S
        self.visited.append(shape)
        time_s = true_s(shape) * math.exp(self.noise(shape) * self._rng.normal())
        return lambda: time_s

    def seconds(self, run: Callable[[], object], repeats: int) -> Sequence[float]:
        strays = np.where(self._rng.random(repeats) < 0.01, 3.0, 1.0)
        times = (float(run()) * strays * np.exp(0.02 * self._rng.normal(size=repeats))).tolist()  # type: ignore[arg-type]
        self.now_s += sum(times)
        return list(times)

    def measurement(self) -> Measurement:
        return Measurement(self, MODEL, load_device("cpu"), clock=lambda: self.now_s)  # type: ignore[arg-type]


@cache
def candidates() -> Candidates:
    return op_candidates(MODEL, GRID)


def planned(machine: Synthetic, budget_s: float, seed: int = 0) -> Measurement:
    measurement = machine.measurement()
    MeasuringPlan(measurement, machine, candidates(), MODEL, seed=seed).run(budget_s)
    return measurement


def gridded(machine: Synthetic, budget_s: float) -> Measurement:
    measurement = machine.measurement()
    measurement.rounds(machine, design(MODEL, GRID), budget_s=budget_s)
    return measurement


def batches(count: int = 120) -> list[list[OpShape]]:
    """The attention and products of batches that neither grid nor plan have chosen: sizes even in their logarithms."""
    rng = np.random.default_rng(5)
    some = {shape.op: shape for shape in design(MODEL, GRID)}

    def drawn(low: float, high: float) -> int:
        return round(float(low * (high / low) ** rng.random()))

    found = []
    for number in range(count):
        ops, tokens = [], 0
        if number % 3:
            chunk = drawn(16, GRID.context - 32)
            past = drawn(16, GRID.context - chunk) if rng.random() < 0.5 else 0
            ops.append(replace(some["prefill_attention"], query_tokens=chunk, past_tokens=past))
            tokens += chunk
        if number % 3 < 2:
            decodes = drawn(1, 32)
            ops.append(replace(some["decode_attention"], sequences=decodes, past_tokens=drawn(16, GRID.context) - 1))
            tokens += decodes
        products = [
            OpShape(op="gemm", kind=kind, n=n, k=k, m=min(tokens, GRID.tokens)) for kind, n, k in MODEL.linears()
        ]
        found.append(ops + products)
    return found


def mean_error(measurement: Measurement) -> float:
    """Return the mean error, on :func:`batches`, of models fitted to what was measured."""
    medians_s = measurement.medians_s()
    predicted: dict[OpShape, float] = {}
    for (op, *_), shapes in grouped(shape for batch in batches() for shape in batch).items():
        known = [shape for shape in medians_s if shape.op == op]
        model = Surrogate(known, np.asarray([medians_s[shape] for shape in known]), np.full(len(known), 0.02))
        predicted |= dict(zip(shapes, model.predict(shapes).time_s.tolist(), strict=True))
    sums = [(sum(predicted[each] for each in batch), sum(map(true_s, batch))) for batch in batches()]
    return float(np.mean([abs(guess / truth - 1) for guess, truth in sums]))


@pytest.mark.parametrize(("budget_s", "seed"), [(1.0, 0), (5.0, 0), (5.0, 1)])
def test_with_the_same_budget_a_plan_is_more_accurate_than_a_grid(budget_s: float, seed: int) -> None:
    plan, grid = (mean_error(way(Synthetic(seed), budget_s)) for way in (planned, gridded))
    assert plan < 0.8 * grid
    assert budget_s < 5 or plan < 0.04


def test_the_same_measurements_give_the_same_choices() -> None:
    one, other = Synthetic(), Synthetic()
    tables = [planned(machine, 2.0).profile() for machine in (one, other)]
    assert one.visited == other.visited
    assert tables[0].table.equals(tables[1].table)
    assert tables[0].meta == tables[1].meta


def test_the_budget_ends_the_plan() -> None:
    machine = Synthetic()
    measurement = machine.measurement()
    began_s, shares = machine.now_s, list[float]()
    plan = MeasuringPlan(measurement, machine, candidates(), MODEL)
    plan.run(1.5, lambda share, _: shares.append(share))
    longest_s = 20 * max(map(true_s, machine.visited))
    assert 1.5 <= machine.now_s - began_s <= 1.5 + PREPARING_S + longest_s
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


@pytest.mark.parametrize("budget_s", [0.0, -1.0, math.nan])
def test_no_budget_is_no_plan(budget_s: float) -> None:
    with pytest.raises(InputError, match="--budget"):
        planned(Synthetic(), budget_s)


def test_the_profile_says_why_each_shape_was_chosen() -> None:
    profile = planned(Synthetic(), 3.0).profile()
    rounds = profile.meta["plan"]["rounds"]
    assert {*rounds[0]} == {EDGE, LONGEST, SPACE_FILLING, MIXED, "seconds"}
    assert all({*each} <= {LEAST_SURE, REPEAT, "seconds"} for each in rounds[1:])
    assert sum(each["seconds"] for each in rounds) == pytest.approx(3.0, rel=0.05)
    visits = profile.meta["plan"]["visits"]
    why = [text.split(", ") for text in profile.table["why"].to_pylist()]
    for reason in (EDGE, LONGEST, SPACE_FILLING, MIXED, LEAST_SURE):
        assert sum(first == reason for first, *_ in why) == visits[reason]
    again = [row for row, (_, *more) in zip(profile.table.to_pylist(), why, strict=True) if more]
    assert 0 < len(again) <= visits[REPEAT]
    assert all(row["why"].endswith(REPEAT) and row["count"] > 3 for row in again)


def test_a_start_that_the_time_did_not_suffice_for_is_counted() -> None:
    profile = planned(Synthetic(), 0.1).profile()
    left = sum(profile.meta["refused"].values())
    assert left + profile.table.num_rows == len(candidates().start)
    assert all(reason.endswith("the budget ended before") for reason in profile.meta["refused"])


def test_shapes_whose_times_scatter_are_measured_again() -> None:
    wide = max(MODEL.linears(), key=lambda linear: linear.n)
    machine = Synthetic(noise=lambda shape: 0.3 if (shape.n, shape.k) == (wide.n, wide.k) else 0.005)
    planned(machine, 10.0)
    often = {shape: machine.visited.count(shape) for shape in set(machine.visited) if shape.op == "gemm"}
    loud = [count for shape, count in often.items() if (shape.n, shape.k) == (wide.n, wide.k)]
    quiet = [count for shape, count in often.items() if (shape.n, shape.k) != (wide.n, wide.k)]
    assert np.mean(loud) > 1.5 * np.mean(quiet)


def test_the_scatter_between_visits_is_learned() -> None:
    rng = np.random.default_rng(0)
    visits = [np.exp(0.1 * rng.normal(size=2)).tolist() for _ in range(200)]
    assert visit_noise(visits) == pytest.approx(0.1, rel=0.25)
    assert visit_noise([[1.0], [2.0]]) == 0.03


def test_a_surrogate_is_least_sure_far_away_and_at_a_cliff() -> None:
    def product(m: int) -> OpShape:
        return OpShape(op="gemm", kind="o_proj", m=m, n=512, k=512)

    known = [product(m) for m in (1, 4, 16, 64, 128, 192, 256, 320, 512, 640)]
    time_s = np.asarray([1e-4 * (1 + shape.m / 64) * (1.8 if shape.m > 200 else 1.0) for shape in known])
    model = Surrogate(known, time_s, np.full(len(known), 0.01))
    near, smooth, cliff, far = model.predict([product(m) for m in (65, 8, 225, 4096)]).deviation
    assert near < far
    assert smooth < far
    assert near < cliff
    assert model.predict(known).time_s == pytest.approx(time_s, rel=0.1)
