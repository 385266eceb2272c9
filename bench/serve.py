"""The server under load, and what it must keep: ``bench/serve.py``, in one run.

Starts ``python -m engine serve`` with a tiny model made up on the spot, and keeps many clients busy who stream
completions, a third of whom go away at a random moment. Every request is of a kind whose answer was noted when the
server had nothing else to do. In the end:

- each request whose client stayed got its own answer, once: its number of tokens, one id that no other has, one end;
- nothing runs, nothing waits, no KV block is in use, and the server's log holds no complaint (it checks its blocks);
- P99 of /health, asked every 100 ms by another process, stayed under 100 ms;
- neither of the server's processes grew by more than 2 MiB in the second half;
- SIGTERM ends the server with status 0.

The exit status is 1 where one of these is broken. Clients and probe share the machine with the server.

Examples: python bench/serve.py
          python bench/serve.py --duration 30 --clients 100 -- --policy sarathi-serve --max-num-seqs 64
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import numpy as np
import typer

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.serving import health  # noqa: E402
from bench.serving.kinds import draw_kinds  # noqa: E402
from bench.serving.load import Load, Outcome, ask_alone  # noqa: E402
from bench.serving.memory import Memory  # noqa: E402
from bench.serving.server import Server, cpu_s, serving  # noqa: E402
from traces.command_line import new_app, new_console, new_table, run  # noqa: E402

HEALTH_P99_S = 0.1
GROWTH_MIB = 2.0
OTHER_TEXT_SHARE = 0.01
"""Sums of floats depend on what else is in a batch, so that once in a while another token is the likeliest."""
SETTLE_S = 10.0
"""How long the server may take to let go of what belonged to clients that have gone."""
app = new_app("The server under load, and what it must keep, in one run.")


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What was seen in one run.

    Attributes
    ----------
    seconds
        From the first request to the last answer.
    unanswered
        Requests whose client waited in vain.
    health_s
        Seconds of each probe of /health that was answered with 200; ``unhealthy`` others.
    used_s
        Seconds of processors that each process used meanwhile.
    metrics
        The server's, after all clients had gone.
    complaints, status
        What its log says, and its exit status.
    """

    outcome: Outcome
    seconds: float
    unanswered: int
    health_s: list[float]
    unhealthy: int
    memory: Memory
    used_s: dict[str, float]
    metrics: dict[str, float]
    complaints: list[str]
    status: int | None

    def broken(self) -> list[str]:
        """Return what did not hold."""
        twice = sum(count > 1 for count in self.outcome.ids.values())
        left = {name: self.metrics[name] for name in AT_REST if self.metrics[name]}
        grew = {name: self.memory.growth_mib(name) for name in ("server", "engine")}
        rules = {
            f"{self.unanswered} requests were never answered": self.unanswered,
            f"wrong answers: {dict(self.outcome.wrong)}": self.outcome.wrong,
            f"{twice} ids came in two answers": twice,
            f"{self.outcome.other_text} answers say something else than alone": self.outcome.other_text
            > OTHER_TEXT_SHARE * self.outcome.answered,
            "no request was answered": not self.outcome.answered,
            f"left over: {left}": left,
            f"requests that the server counts: {self._counted()}, sent: {self.outcome.sent}": not self._adds_up(),
            f"{self.unhealthy} probes of /health failed": self.unhealthy,
            f"P99 of /health is {percentile_ms(self.health_s, 99):.0f} ms": self._slow(),
            **{f"the {name} grew by {mib:.1f} MiB in the second half": mib > GROWTH_MIB for name, mib in grew.items()},
            f"its log: {self.complaints[:3]}": self.complaints,
            f"its exit status is {self.status}": self.status != 0,
        }
        return [what for what, holds in rules.items() if holds]

    def _slow(self) -> bool:
        return not self.health_s or percentile_ms(self.health_s, 99) > 1e3 * HEALTH_P99_S

    def _counted(self) -> dict[str, int]:
        return {reason: int(self.metrics.get(ENDED.format(reason), 0)) for reason in ("length", "abort", "stop")}

    def _adds_up(self) -> bool:
        """Whether the server ended every request that it took on, those that were answered by their length."""
        counted = self._counted()
        return self.outcome.answered <= counted["length"] and sum(counted.values()) <= self.outcome.sent


AT_REST = ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc")
ENDED = 'vllm:request_success_total{{finished_reason="{}"}}'


def percentile_ms(values_s: Any, percent: float) -> float:
    """Return a percentile in milliseconds; NaN of nothing."""
    return float(np.percentile(values_s, percent)) * 1e3 if len(values_s) else float("nan")


@app.command()
def main(
    serve_options: Annotated[
        list[str] | None, typer.Argument(help="Options of `engine serve`, after --.", show_default=False)
    ] = None,
    duration: Annotated[float, typer.Option(min=1, help="Seconds of load.")] = 300.0,
    clients: Annotated[int, typer.Option(min=1, help="Requests at once.")] = 500,
    leaving: Annotated[float, typer.Option(min=0, max=1, help="Share of requests whose client goes away.")] = 1 / 3,
    kinds: Annotated[int, typer.Option(min=1, help="Different requests.")] = 64,
    prompt_tokens: Annotated[int, typer.Option(min=1, help="Of the longest prompt.")] = 128,
    output_tokens: Annotated[int, typer.Option(min=1, help="Of the longest answer.")] = 128,
    drain: Annotated[float, typer.Option(min=0, help="Seconds that the last answers may take.")] = 120.0,
    seed: Annotated[int, typer.Option(min=0, help="Of requests and of who leaves when.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document instead of the table.")] = False,
) -> None:
    """Print what was measured, and what did not hold."""
    drawn = draw_kinds(kinds, prompt_tokens=prompt_tokens, output_tokens=output_tokens, seed=seed)
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder), serve_options or ()) as server:
        texts = asyncio.run(ask_alone(server.host, server.port, drawn))
        load = Load(server.host, server.port, drawn, texts, leaving=leaving, seed=seed)
        found = asyncio.run(
            observe(server, load, clients=clients, duration_s=duration, drain_s=drain, alone=len(texts))
        )
    broken = found.broken()
    if as_json:
        print(json.dumps({**figures(found), "broken": broken}, indent=1))
    else:
        report(found, f"{clients} clients for {duration:g} s, {leaving:.0%} of requests left", broken)
    raise typer.Exit(1 if broken else 0)


async def observe(
    server: Server, load: Load, *, clients: int, duration_s: float, drain_s: float, alone: int
) -> Findings:
    """Put a server under load, and end it; ``alone`` requests have been answered before."""
    script = [sys.executable, "-S", "-E", health.__file__, server.host, str(server.port)]
    probe = subprocess.Popen(script, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    memory = Memory(server.pids)
    watching = asyncio.create_task(memory.watch())
    probed = asyncio.create_task(asyncio.to_thread(probe.stdout.readlines))  # type: ignore[union-attr]
    before_s = {name: cpu_s(pid) for name, pid in server.pids.items()}
    begin_s = perf_counter()
    try:
        unanswered = await load.run(clients, duration_s=duration_s, drain_s=drain_s)
        seconds = perf_counter() - begin_s
    finally:
        probe.stdin.close()  # type: ignore[union-attr]
        watching.cancel()
    probes = [line.split() for line in await probed]
    probe.wait()
    used_s = {name: cpu_s(pid) - before_s[name] for name, pid in server.pids.items()}
    metrics = await at_rest(server)
    metrics[ENDED.format("length")] -= alone
    status = await asyncio.to_thread(server.stop)
    return Findings(
        outcome=load.outcome,
        seconds=seconds,
        unanswered=unanswered,
        health_s=[float(took_s) for _, took_s, status in probes if status == "200"],
        unhealthy=sum(status != "200" for *_, status in probes),
        memory=memory,
        used_s=used_s,
        metrics=metrics,
        complaints=server.complaints(),
        status=status,
    )


async def at_rest(server: Server) -> dict[str, float]:
    """Return the server's metrics once nothing is left, or as they are after a while."""
    until_s = perf_counter() + SETTLE_S
    while True:
        metrics = await asyncio.to_thread(server.metrics)
        if perf_counter() > until_s or not any(metrics[name] for name in AT_REST):
            return metrics
        await asyncio.sleep(0.2)


def figures(found: Findings) -> dict[str, Any]:
    """Return everything that was measured."""
    outcome, generated = found.outcome, found.metrics["vllm:generation_tokens_total"]
    latencies = {"ttft": outcome.ttfts_s, "tbt": outcome.gaps_s, "health": found.health_s}
    return {
        "seconds": found.seconds,
        "sent": outcome.sent,
        "answered": outcome.answered,
        "left": outcome.left,
        "other_text": outcome.other_text,
        "requests_per_s": outcome.answered / found.seconds,
        "tokens_per_s": outcome.tokens / found.seconds,
        "generated_per_s": generated / found.seconds,
        "preemptions": int(found.metrics["vllm:num_preemptions_total"]),
        **{
            f"{name}_p{percent}_ms": percentile_ms(values, percent)
            for name, values in latencies.items()
            for percent in (50, 99, 100)
        },
        **{f"{name}_mib": found.memory.mib(name) for name in ("server", "engine")},
        **{f"{name}_cpu_us_a_token": 1e6 * found.used_s[name] / generated for name in ("server", "engine")},
        **{f"{name}_growth_mib": found.memory.growth_mib(name) for name in ("server", "engine")},
    }


def report(found: Findings, title: str, broken: list[str]) -> None:
    """Print a table and a verdict."""
    seen = figures(found)
    table = new_table(title, "", "", "")
    table.add_row("requests sent / answered / left", f"{seen['sent']} / {seen['answered']} / {seen['left']}", "")
    table.add_row("answers unlike the one alone", f"{seen['other_text']}", "")
    table.add_row("requests/s answered", f"{seen['requests_per_s']:.1f}", "")
    table.add_row("tokens/s answered, generated", f"{seen['tokens_per_s']:,.0f}", f"{seen['generated_per_s']:,.0f}")
    table.add_row("preemptions", f"{seen['preemptions']:,}", "")
    for name in ("ttft", "tbt", "health"):
        each = " / ".join(f"{seen[f'{name}_p{percent}_ms']:,.1f}" for percent in (50, 99, 100))
        table.add_row(f"{'/health' if name == 'health' else name.upper()} P50 / P99 / most (ms)", each, "")
    for name in ("server", "engine"):
        table.add_row(f"µs of a processor a token, {name}", f"{seen[f'{name}_cpu_us_a_token']:,.0f}", "")
    for name in ("server", "engine"):
        held = " / ".join(f"{each:.0f}" for each in seen[f"{name}_mib"])
        table.add_row(
            f"MiB of the {name}: begin / middle / end", held, f"{seen[f'{name}_growth_mib']:+.2f} since the middle"
        )
    console = new_console()
    console.print(table)
    for each in broken:
        console.print(f"BROKEN: {each}")
    if not broken:
        console.print("All that must hold holds.")


if __name__ == "__main__":
    run(app, "bench/serve.py")
