"""Requests a second and memory of the simulator: ``bench/simulator.py``, in one run.

Each case is simulated in a process of its own, one after the other, on one core: the run record is written, read back
and measured as ``python -m simulator run`` does it (without the HTML report). Requests/s count from the first arrival
to the last metric; what a command takes once, imports and the cost model's tables, does not count (``--json`` has
it). With ``--quick`` each case runs three times, of which the quickest counts. Without it: each policy with 1,000 to
1,000,000 requests, and clusters of 1 to 1,000 replicas whose load grows with them, as a table, as JSON and as a plot.

Examples: python bench/simulator.py --quick
          python bench/simulator.py --policy vllm --most-requests 100000 --output out/bench-simulator
          python bench/simulator.py --quick my-trace.csv --model mistral-7b
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import resource
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from policies.catalog import PolicyChoice  # noqa: E402
from simulator.session import Request, prepare  # noqa: E402
from simulator.simulation import Scenario, simulate  # noqa: E402
from traces.command_line import new_app, new_console, new_table, run  # noqa: E402
from traces.files import whole_file, write_json  # noqa: E402
from traces.metrics import measure  # noqa: E402
from traces.run_record import read_run  # noqa: E402
from traces.source import open_workload  # noqa: E402
from traces.stalls import stall_threshold  # noqa: E402

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

DATA = Path(os.environ.get("CHARIOTEER_DATA", ROOT.parent / "shared" / "data"))
TRACE = DATA / "traces" / "AzureLLMInferenceTrace_conv.csv.gz"
QUICK = ("sarathi-serve", "sarathi-serve:max_num_batched_tokens=2048")
POLICIES = ("faster-transformer", "orca", "vllm", "sarathi-serve", "vllm-v1")
SIZES = (1_000, 10_000, 100_000, 1_000_000)
REPLICAS = (1, 10, 100, 1_000)
REQUESTS_A_REPLICA = 1_000
REPEATS = 3
CHAT_RATE_PER_S = 2.5
"""Of a replica: what mistral-7b on one A100 keeps up with, near saturation."""
MIB = 1 << 20
app = new_app("Requests a second and memory of the simulator, in one run.")


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is simulated.

    Attributes
    ----------
    name
        Which workload, for people.
    grows
        What grows from case to case of its series: requests, replicas, or nothing.
    rate
        By how many times faster than in the trace requests come.
    step
        Whether iterations are scheduled one by one.
    repeats
        How often it is simulated; the quickest counts, so that what other programs do meanwhile drops out.
    """

    name: str
    workload: str
    policy: str
    model: str
    device: str
    grows: str = ""
    num_prompts: int | None = None
    request_rate: float | None = None
    rate: float = 1.0
    replicas: int = 1
    router: str = "round-robin"
    step: bool = False
    repeats: int = 1


@dataclass(frozen=True, kw_only=True)
class Result:
    """What was measured; seconds by the wall, the most memory that the process had at once."""

    case: Case
    requests: int
    iterations: int
    prepare_s: float
    simulate_s: float
    metrics_s: float
    peak_mib: float
    digest: str

    @property
    def seconds(self) -> float:
        """From the first arrival to the last metric."""
        return self.simulate_s + self.metrics_s

    @property
    def requests_per_s(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {**asdict(self), "requests_per_s": self.requests_per_s}


@app.command()
def main(
    workload: Annotated[
        str | None, typer.Argument(help="A trace for --quick, instead of the Azure conversation trace.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Only the trace, at its own rate and four times it.")] = False,
    policy: Annotated[list[str] | None, typer.Option(help="Instead of the usual ones; repeatable.")] = None,
    model: Annotated[str, typer.Option(help="For --quick: a preset or a model's config.json.")] = "llama-3.1-8b",
    device: Annotated[str, typer.Option(help="A preset.")] = "a100-sxm",
    most_requests: Annotated[int, typer.Option(min=1000, help="The largest number of requests.")] = SIZES[-1],
    most_replicas: Annotated[int, typer.Option(min=1, help="The largest number of replicas.")] = REPLICAS[-1],
    step: Annotated[
        bool, typer.Option("--step", help="Beside each of --quick the step-by-step mode, and whether the bytes agree.")
    ] = False,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for results.json and plot.html.")] = Path(
        "out/bench-simulator"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document instead of the table.")] = False,
) -> None:
    """Print one line a case; write results.json and plot.html (not with --quick)."""
    if quick or workload is not None:
        cases = _trace_cases(workload or str(TRACE), policy or QUICK, model, device, step=step)
    else:
        cases = _growth_cases(policy or POLICIES, device, most_requests, most_replicas)
    results = list(_results(cases))
    if as_json:
        print(json.dumps([result.as_dict() for result in results], indent=1))
    else:
        _print(results)
    if not quick and workload is None:
        write_json(output / "results.json", {"results": [result.as_dict() for result in results]})
        with whole_file(output / "plot.html") as path:
            _plot(results).write_html(path, include_plotlyjs=True)
        print(f"Plot: {output / 'plot.html'}", file=sys.stderr)


def _trace_cases(workload: str, policies: Sequence[str], model: str, device: str, *, step: bool) -> list[Case]:
    return [
        Case(
            name=f"{Path(workload).name.split('.')[0]} x{rate:g}",
            workload=workload,
            policy=each,
            model=model,
            device=device,
            rate=rate,
            step=one_by_one,
            repeats=REPEATS,
        )
        for each in policies
        for rate in (1.0, 4.0)
        for one_by_one in ((False, True) if step else (False,))
    ]


def _growth_cases(policies: Sequence[str], device: str, most_requests: int, most_replicas: int) -> list[Case]:
    chat = Case(name="chat", workload="chat", policy="", model="mistral-7b", device=device)
    by_requests = [
        replace(chat, policy=policy, num_prompts=size, request_rate=CHAT_RATE_PER_S, grows="requests")
        for policy in policies
        for size in SIZES
        if size <= most_requests
    ]
    by_replicas = [
        replace(
            chat,
            policy="sarathi-serve",
            grows="replicas",
            replicas=replicas,
            router=router,
            num_prompts=replicas * REQUESTS_A_REPLICA,
            request_rate=replicas * CHAT_RATE_PER_S,
        )
        for router in ("round-robin", "least-requests", "power-of-two")
        for replicas in REPLICAS
        if replicas <= most_replicas and replicas * REQUESTS_A_REPLICA <= most_requests
    ]
    return by_requests + by_replicas


def _results(cases: Sequence[Case]) -> Iterator[Result]:
    """Measure each case in a fresh process; say on standard error which one runs."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, max_tasks_per_child=1) as pool:
        for number, case in enumerate(cases, 1):
            said = f"{case.name} {case.policy}, {case.num_prompts or 'all'} requests, {case.replicas} replicas"
            print(f"{number} of {len(cases)}: {said}", file=sys.stderr)
            yield pool.submit(_measured, case).result()


def _measured(case: Case) -> Result:
    begin_s = perf_counter()
    scenario, choices = prepare(_asked(case))
    ((_, choice),) = choices.items()
    prepare_s = perf_counter() - begin_s
    results = [_once(case, replace(scenario, step=case.step), choice, prepare_s) for _ in range(case.repeats)]
    return min(results, key=lambda result: result.seconds)


def _once(case: Case, scenario: Scenario, choice: PolicyChoice, prepare_s: float) -> Result:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        start_s = perf_counter()
        simulate(scenario, choice, path)
        simulated_s = perf_counter()
        record = read_run(path)
        measure(record, stall_threshold_s=stall_threshold([record]))
        end_s = perf_counter()
        digest = _digest(path)
    return Result(
        case=case,
        requests=len(record.requests),
        iterations=len(record.iterations),
        prepare_s=prepare_s,
        simulate_s=simulated_s - start_s,
        metrics_s=end_s - simulated_s,
        peak_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MIB,
        digest=digest,
    )


def _asked(case: Case) -> Request:
    rate_per_s = case.request_rate
    if case.rate != 1.0:
        rate_per_s = case.rate * open_workload(case.workload).rate_per_s
    cluster: dict[str, Any] = {"replicas": case.replicas, "router": case.router} if case.replicas > 1 else {}
    return Request(
        workload=case.workload,
        policies=case.policy,
        output=Path(),
        model=case.model,
        device=case.device,
        num_prompts=case.num_prompts,
        request_rate=rate_per_s,
        **cluster,
    )


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _print(results: Sequence[Result]) -> None:
    growth = _growth(results)
    title = "one process on one core"
    table = new_table(title, "workload", "policy", "requests", "iterations", "requests/s", "iter./s", "growth", "MiB")
    for result in results:
        case = result.case
        settled = case.policy.replace("max_num_batched_tokens", "budget")
        table.add_row(
            case.name + (f", {case.replicas:,} replicas, {case.router}" if case.grows == "replicas" else ""),
            settled + (", step by step" if case.step else ""),
            f"{result.requests:,}",
            f"{result.iterations:,}",
            f"{result.requests_per_s:,.0f}",
            f"{result.iterations / result.seconds:,.0f}",
            f"{growth[case]:.2f}" if case in growth else "",
            f"{result.peak_mib:,.0f}",
        )
    console = new_console()
    console.print(table)
    if growth:
        console.print("growth: time a request, over that of the line before in its series; 1 is linear")
    for fast, step in pairwise(results):
        if step.case == replace(fast.case, step=True):
            same = "the same bytes" if fast.digest == step.digest else "OTHER BYTES"
            console.print(f"{fast.case.name} {fast.case.policy}: step by step writes {same}")


def _series(results: Sequence[Result], grows: str) -> dict[str, list[Result]]:
    """Return the results of growing cases, by policy or router."""
    series: dict[str, list[Result]] = {}
    for result in results:
        if result.case.grows == grows:
            name = result.case.policy if grows == "requests" else result.case.router
            series.setdefault(name, []).append(result)
    return series


def _growth(results: Sequence[Result]) -> dict[Case, float]:
    """Return how much longer a request takes in each case than in the one before of its series."""
    pairs = [
        pair
        for grows in ("requests", "replicas")
        for each in _series(results, grows).values()
        for pair in pairwise(each)
    ]
    return {result.case: before.requests_per_s / result.requests_per_s for before, result in pairs}


def _plot(results: Sequence[Result]) -> Figure:
    """Draw requests/s and memory over requests, and requests/s over replicas."""
    from plotly.graph_objects import Scatter
    from plotly.subplots import make_subplots

    from simulator.figure_style import PALETTE

    titles = ("requests/s by requests", "peak memory (MiB) by requests", "requests/s by replicas, 1,000 requests each")
    figure = make_subplots(rows=1, cols=3, subplot_titles=titles)
    for colour, (policy, series) in zip(PALETTE, _series(results, "requests").items(), strict=False):
        look: dict[str, Any] = {"name": policy, "line": {"color": colour}, "legendgroup": policy}
        sizes = [result.requests for result in series]
        figure.add_trace(Scatter(x=sizes, y=[result.requests_per_s for result in series], **look), 1, 1)
        figure.add_trace(Scatter(x=sizes, y=[result.peak_mib for result in series], showlegend=False, **look), 1, 2)
    for colour, (router, series) in zip(reversed(PALETTE), _series(results, "replicas").items(), strict=False):
        replicas = [result.case.replicas for result in series]
        speeds = [result.requests_per_s for result in series]
        figure.add_trace(Scatter(x=replicas, y=speeds, name=router, line={"color": colour}), 1, 3)
    figure.update_xaxes(type="log")
    figure.update_yaxes(rangemode="tozero")
    figure.update_layout(template="plotly_white", height=460, title="The simulator, one process on one core")
    return figure


if __name__ == "__main__":
    run(app, "bench/simulator.py")
