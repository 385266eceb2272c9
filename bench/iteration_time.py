"""Microseconds a call of ``CostModel.iteration_time`` in the simulator's own loop: ``bench/iteration_time.py``.

A trace is simulated several times over and each call timed where the simulator makes it, with caches as the rest of
the loop leaves them and tables as empty as a fresh cost model's. The replays are the same batch for batch, so the least
time of each call counts, less what the clock itself takes: what other processes do to a replay drops out. Beside it the
plain version of the tests, which tabulates nothing, on some of the same batches, and by how much the two differ.

Examples: python bench/iteration_time.py
          python bench/iteration_time.py --policy orca --request-rate 20 --num-prompts 4000 my-trace.csv
"""

from __future__ import annotations

import gc
import json
import os
import statistics
import sys
from array import array
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from time import perf_counter_ns
from typing import Annotated, Any

import typer

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from policies.arrivals import Arrivals  # noqa: E402
from policies.batch import Batch, Completion  # noqa: E402
from profiler.cost_model import CostModel, load_cost_model  # noqa: E402
from simulator.clock import Clock  # noqa: E402
from simulator.flight import Flight  # noqa: E402
from simulator.replica import Replica  # noqa: E402
from simulator.session import Request, prepare  # noqa: E402
from simulator.simulation import Scenario, feed  # noqa: E402
from tests.profiler.plain_cost import PlainCostModel  # noqa: E402
from traces.command_line import new_app, new_console, new_table, run  # noqa: E402

DATA = Path(os.environ.get("CHARIOTEER_DATA", ROOT.parent / "shared" / "data"))
TRACE = DATA / "traces" / "AzureLLMInferenceTrace_conv.csv.gz"
KINDS = ("decodes only", "one chunk", "more chunks")
PLAIN_EVERY = 20
app = new_app("Microseconds a call of iteration_time, beside the plain version, in one run.")


class Stopwatch:
    """Stage times of a cost model, each call timed; every so often the plain version's too.

    Attributes
    ----------
    call_ns
        Of each call in turn.
    kinds
        Index into :data:`KINDS` of each.
    plain_ns, plain_kinds, difference
        The same of the plain version, and by which share of the time the two differ at most.
    """

    def __init__(self, cost_model: CostModel, plain: PlainCostModel | None) -> None:
        self._cost_model, self._plain = cost_model, plain
        self._predict: Callable[[Batch, int], float] = cost_model.iteration_time
        self.call_ns, self.kinds = array("q"), array("b")
        self.plain_ns, self.plain_kinds, self.difference = array("q"), array("b"), 0.0

    def iteration_time(self, batch: Batch, stage: int = 0) -> float:
        start_ns = perf_counter_ns()
        seconds = self._predict(batch, stage)
        self.call_ns.append(perf_counter_ns() - start_ns)
        self.kinds.append(min(len(batch.chunks), 2))
        if self._plain is not None and len(self.kinds) % PLAIN_EVERY == 0:
            self._compare(self._plain, batch, seconds)
        return seconds

    def _compare(self, plain: PlainCostModel, batch: Batch, seconds: float) -> None:
        start_ns = perf_counter_ns()
        expected_s = plain.iteration_time(batch)
        self.plain_ns.append(perf_counter_ns() - start_ns)
        self.plain_kinds.append(self.kinds[-1])
        self.difference = max(self.difference, abs(seconds / expected_s - 1))

    def hand_off_time(self, tokens: int) -> float:
        return self._cost_model.hand_off_time(tokens)


@app.command()
def main(
    workload: Annotated[str, typer.Argument(help="As of python -m simulator run.")] = str(TRACE),
    policy: Annotated[list[str] | None, typer.Option(help="Default: sarathi-serve and vllm-v1.")] = None,
    model: Annotated[str, typer.Option(help="A preset or a model's config.json.")] = "llama-3.1-8b",
    device: Annotated[str, typer.Option(help="A preset.")] = "a100-sxm",
    num_prompts: Annotated[int | None, typer.Option(min=1, help="Only the first so many requests.")] = None,
    request_rate: Annotated[float | None, typer.Option(help="Requests a second. Default: as in the trace.")] = None,
    replays: Annotated[int, typer.Option(min=1, help="Of which the least time of each call counts.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Print one line a policy and kind of batch."""
    lines = []
    for policies in policy or ("sarathi-serve", "vllm-v1"):
        asked = Request(
            workload=workload,
            policies=policies,
            output=Path(),
            model=model,
            device=device,
            num_prompts=num_prompts,
            request_rate=request_rate,
        )
        lines += _lines(asked, replays)
    print(json.dumps(lines, indent=1)) if as_json else _print(lines)


def _lines(asked: Request, replays: int) -> list[dict[str, Any]]:
    scenario, choices = prepare(asked)
    label, choice = next(iter(choices.items()))
    clock_ns = _clock_ns()
    watches = [_replay(scenario, choice, with_plain=turn == 0) for turn in range(replays + 1)]
    first, *timed = watches
    least_ns = [min(calls) - clock_ns for calls in zip(*(watch.call_ns for watch in timed), strict=True)]
    lines = []
    for name, kinds in (*((name, {kind}) for kind, name in enumerate(KINDS)), ("average", {0, 1, 2})):
        ours = [ns for ns, kind in zip(least_ns, first.kinds, strict=True) if kind in kinds]
        plain = [ns - clock_ns for ns, kind in zip(first.plain_ns, first.plain_kinds, strict=True) if kind in kinds]
        if not ours:
            continue
        line = {"policy": label, "batches": name, "calls": len(ours), "us": statistics.fmean(ours) / 1000}
        plain_us = statistics.fmean(plain) / 1000 if plain else None
        lines.append({**line, "plain_us": plain_us, "largest_difference": first.difference})
    return lines


def _replay(scenario: Scenario, choice: Any, *, with_plain: bool) -> Stopwatch:
    """Simulate the scenario once, with a cost model of its own."""
    (group,) = scenario.cluster.groups
    cost_model = load_cost_model(group.deployment)
    watch = Stopwatch(cost_model, PlainCostModel(cost_model) if with_plain else None)
    clock, arrivals = Clock(), Arrivals(scenario.workload, group.memory.block_size)
    feed(clock, arrivals, Replica(clock, choice.build(group.memory, stages=1), watch, _forget).submit)
    gc.collect()
    clock.run()
    return watch


def _forget(flight: Flight, done: Completion) -> None:
    """Take what a replica reports of an iteration."""


def _clock_ns() -> int:
    """Return what two readings of the clock with nothing between them take."""
    reads = [perf_counter_ns() for _ in range(10_000)]
    return min(after - before for before, after in pairwise(reads))


def _print(lines: list[dict[str, Any]]) -> None:
    table = new_table(
        "microseconds a call", "policy", "batches", "calls", "iteration_time", "plain", "differ by at most"
    )
    for line in lines:
        plain = "" if line["plain_us"] is None else f"{line['plain_us']:.1f}"
        cells = [f"{line['calls']:,}", f"{line['us']:.2f}", plain, f"{line['largest_difference']:.1e}"]
        table.add_row(line["policy"], line["batches"], *cells)
    new_console().print(table)


if __name__ == "__main__":
    run(app, "bench/iteration_time.py")
