"""Measuring a machine: every shape of a grid in rounds, until the time is up."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from profiler.device import Device
from profiler.iteration import OP as ITERATION
from profiler.kernels import Kernels, Machine, OpShape, Timed
from profiler.lint import Roofline, lint, reached
from profiler.model import Model
from profiler.plan import plan_of
from profiler.profile import Meta, Profile, ops_table
from traces.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

FIRST_REPEATS = 3
MOST_REPEATS = 20
ROUND_SHARE_S = 0.01
"""Seconds that one shape may take in a later round: short ops are repeated more often."""
SETTLING_S = 0.05
"""Seconds for which an iteration runs before it is timed: in service most resemble those just before."""
CEILING_REPEATS = 5
CEILING_PRODUCT = 1024
Progress = Callable[[float, str], None]
"""Told the share of the work done (0 to 1) and what is being measured."""


@dataclass
class Samples:
    """Times of one shape.

    Attributes
    ----------
    seconds
        All of them.
    visits_s
        The median of those of each visit: what was timed at one go.
    spent_s, around_s
        What the last visit took; and without its calls, which is preparing them.
    why
        The reasons of the visits, each once.
    """

    seconds: list[float] = field(default_factory=list)
    visits_s: list[float] = field(default_factory=list)
    spent_s: float = 0.0
    around_s: float = 0.0
    why: dict[str, None] = field(default_factory=dict)

    _summary: tuple[int, float, float] = (0, math.nan, math.nan)

    @property
    def median_s(self) -> float:
        """The median time."""
        return self._summarised()[1]

    @property
    def spread_s(self) -> float:
        """Half the range of the middle half of the times; NaN for a single time."""
        return self._summarised()[2]

    def forget_summary(self) -> None:
        """Have the summary made anew; only when ``seconds`` were changed and not added to."""
        self._summary = (0, math.nan, math.nan)

    def _summarised(self) -> tuple[int, float, float]:
        """Return how many times there are, their median and their spread; a plan asks often."""
        if self._summary[0] != len(self.seconds):
            low, median, high = np.quantile(self.seconds, (0.25, 0.5, 0.75)).tolist()
            spread = (high - low) / 2 if len(self.seconds) > 1 else math.nan
            self._summary = len(self.seconds), median, spread
        return self._summary


class Measurement:
    """A machine under measurement: samples pile up, round after round, until they are asked for as a profile.

    Parameters
    ----------
    kernels
        What runs there.
    model
        Whose shapes are measured.
    device
        The preset that the machine is an instance of. For a CPU its figures are defaults, and the rates found
        here replace them (``meta["ceilings"]``).
    clock
        Returns seconds, from any moment on.
    """

    def __init__(
        self, kernels: Kernels, model: Model, device: Device, *, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._kernels, self._model, self._device, self.clock = kernels, model, device, clock
        self._before = kernels.machine()
        self._ceilings = _ceilings(kernels, self._before)
        self._samples: dict[OpShape, Samples] = {}
        self._asked: dict[OpShape, None] = {}
        self._rounds: list[Mapping[str, Any]] = []
        self._rng = np.random.default_rng(0)

    def rounds(
        self, timed: Timed, shapes: Sequence[OpShape], *, budget_s: float, progress: Progress = lambda *_: None
    ) -> dict[OpShape, list[float]]:
        """Time ``shapes`` for about ``budget_s`` seconds, and return what was added to the samples.

        The first round begins with the shortest ops, and shapes that the time did not suffice for are counted
        in ``meta["refused"]``. Every other round goes through all shapes in another order, so that a machine
        that slows down for a while spoils a sample of many shapes and not the median of a few.

        Raises
        ------
        InputError
            If there is no budget.
        """
        if not budget_s > 0:
            raise InputError(f"{budget_s} seconds", where="--budget", expected="more than 0")
        end = self.clock() + budget_s
        added: dict[OpShape, list[float]] = {}
        order = self._order(shapes)
        while True:
            for shape in order:
                known = self._samples.setdefault(shape, Samples())
                before = len(known.seconds)
                self.visit(timed, shape)
                added.setdefault(shape, []).extend(known.seconds[before:])
                left = end - self.clock()
                progress(min(1.0, 1 - left / budget_s), f"{shape.op} {shape.kind}")
                if left <= 0:
                    return added
            order = self._order(shapes)

    def ask(self, shapes: Sequence[OpShape]) -> None:
        """Note shapes that are to be measured: those that the time does not suffice for are counted."""
        self._asked.update(dict.fromkeys(shapes))

    def note_round(self, facts: Mapping[str, Any]) -> None:
        """Note what a round of a :class:`profiler.plan.MeasuringPlan` was for, for the profile."""
        self._rounds.append(facts)

    def _order(self, shapes: Sequence[OpShape]) -> Sequence[OpShape]:
        self.ask(shapes)
        if any(shape not in self._samples for shape in shapes):
            return sorted(shapes, key=lambda shape: (shape.flops, shape.size_bytes, shape.m))
        return [shapes[index] for index in self._rng.permutation(len(shapes))]

    def visit(self, timed: Timed, shape: OpShape, why: str = "") -> Samples:
        """Time ``shape`` a few times at one go, and return all there is of it."""
        began_s = self.clock()
        run, known = timed.prepare(shape), self._samples.setdefault(shape, Samples())
        settled_s = sum(timed.seconds(run, 1))
        while shape.op == ITERATION and settled_s < SETTLING_S:
            settled_s += sum(timed.seconds(run, 1))
        repeats = 1 if shape.op == ITERATION else FIRST_REPEATS
        if known.seconds:
            repeats = max(1, min(MOST_REPEATS, int(ROUND_SHARE_S / max(known.median_s, 1e-9))))
        taken = list(timed.seconds(run, repeats))
        known.seconds.extend(taken)
        known.visits_s.append(float(np.median(taken)))
        known.why |= dict.fromkeys([why] if why else [])
        known.spent_s = self.clock() - began_s
        known.around_s = max(0.0, known.spent_s - settled_s - sum(taken))
        return known

    def seconds(self, shape: OpShape) -> Sequence[float]:
        """Return all samples of a shape so far."""
        known = self._samples.get(shape)
        return () if known is None else known.seconds

    def medians_s(self) -> dict[OpShape, float]:
        """Return the median of all samples so far of every shape that has any."""
        return {shape: known.median_s for shape, known in self._samples.items()}

    def correct(self, taken: Mapping[OpShape, Sequence[float]], pace: float) -> None:
        """Divide samples that :meth:`rounds` returned by ``pace``: the machine took so much longer just then."""
        for shape, times in taken.items():
            known = self._samples[shape]
            for time_s in times:
                known.seconds[known.seconds.index(time_s)] = time_s / pace
            known.forget_summary()

    def profile(self) -> Profile:
        """Return the medians of all samples so far as a linted profile.

        Raises
        ------
        InputError
            If most rows beat the datasheet of the device.
        """
        before, after = self._before, self._kernels.machine()
        table = _table(self._samples, self._model.dtype)
        roofline = _roofline(self._device, before, self._ceilings, table)
        kept, refused = lint(table, roofline)
        if sum(refused.values()) > kept.num_rows:
            what = f"{before.device_name} is faster than a {self._device.title} can be"
            raise InputError(what, where="--device", expected="the device that is measured")
        whole = any(shape.op == ITERATION for shape in self._samples)
        how = "single kernels, weights and KV not in cache" + (", and whole iterations" if whole else "")
        meta = Meta(
            device=self._device.name,
            device_name=before.device_name,
            model=self._model.name,
            sizes=asdict(self._model),
            dtype=self._model.dtype,
            driver=before.driver,
            clocks=_clocks(before, after),
            versions=before.versions,
            timed_by=f"{how}, {before.threads} thread(s), median of rounds",
            source="measured here",
            rows=kept.num_rows,
            refused=refused | _unmeasured(self._asked, self._samples),
            plan=plan_of(self._rounds),
            ceilings={**asdict(roofline), "memory_bytes": before.memory_bytes, **self._ceilings},
        )
        return Profile(asdict(meta), kept)


def _clocks(before: Machine, after: Machine) -> str:
    return before.clocks if before.clocks == after.clocks else f"{before.clocks} before, {after.clocks} after"


def _ceilings(kernels: Kernels, machine: Machine) -> dict[str, float]:
    """Return the best rates of a copy and a read through memory, and of a large square product."""
    size_bytes = machine.cache_bytes
    moves = {name: _fastest_s(kernels, OpShape(op=name, kind=name, size_bytes=size_bytes)) for name in ("copy", "read")}
    side = CEILING_PRODUCT * (1 if machine.is_cpu else 8)
    product = OpShape(op="gemm", kind="square", m=side, n=side, k=side)
    return {
        "measured_copy_bytes_per_s": 2 * size_bytes / moves["copy"],
        "measured_read_bytes_per_s": size_bytes / moves["read"],
        "measured_product_flops": product.flops / _fastest_s(kernels, product),
    }


def _fastest_s(kernels: Kernels, shape: OpShape) -> float:
    return min(kernels.seconds(kernels.prepare(shape), CEILING_REPEATS))


def _table(samples: Mapping[OpShape, Samples], dtype: str) -> pa.Table:
    rows = [asdict(shape) for shape in samples]
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    return ops_table(
        len(rows),
        dtype=dtype,
        time_s=[each.median_s for each in samples.values()],
        spread_s=[each.spread_s for each in samples.values()],
        count=[len(each.seconds) for each in samples.values()],
        why=[", ".join(each.why) for each in samples.values()],
        **columns,
    )


def _roofline(device: Device, machine: Machine, measured: Mapping[str, float], table: pa.Table) -> Roofline:
    """Return the device's roofline; that of a CPU is the best rate that was seen here."""
    roofline = Roofline.of(device)
    if not machine.is_cpu:
        return roofline
    roofline = replace(roofline, l2_bytes=machine.cache_bytes)
    flops_per_s, bytes_per_s = reached(table, roofline)
    copies = (measured["measured_copy_bytes_per_s"], measured["measured_read_bytes_per_s"])
    return replace(
        roofline,
        peak_flops=max(measured["measured_product_flops"], flops_per_s),
        memory_bandwidth_bytes_per_s=max(*copies, bytes_per_s),
    )


def _unmeasured(shapes: Iterable[OpShape], samples: Mapping[OpShape, Samples]) -> dict[str, int]:
    left = Counter(shape.op for shape in shapes if shape not in samples)
    return {f"{op}: the budget ended before": count for op, count in sorted(left.items())}
