"""Capacity of Slack beside that of the best static Sarathi-Serve budget: ``bench/slack.py``.

Capacity is the highest Poisson rate at which the P99 of the time between tokens stays within a target, the median
scheduling delay within 2 s, and the queue does not grow for ever (``python -m simulator capacity``). The static budget
is the best of a grid over 256 to 8192 tokens in steps of about 9 %, by the very seeds on which the two are compared:
every choice is to its advantage. The same seeds draw the same requests for both, so that each gives a ratio; the
interval is Student's, of the mean log ratio.

Beside it what the two do with the same requests at 95 % of the static budget's capacity, long prompts (the longest
tenth) by themselves.

Examples: python bench/slack.py --quick
          python bench/slack.py --case mistral-7b,chat,strict --seeds 10
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from math import exp, inf, log, sqrt
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import numpy as np
import typer

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from policies.catalog import PolicyChoice, choose  # noqa: E402
from profiler.aggregates import Aggregates  # noqa: E402
from profiler.cost_model import load_cost_model  # noqa: E402
from profiler.deployment import Deployment  # noqa: E402
from simulator.capacity.saturation import SATURATION  # noqa: E402
from simulator.capacity.service import Budget as ServiceBudget  # noqa: E402
from simulator.capacity.service import Trials, find_service  # noqa: E402
from simulator.capacity.slo import Slo, parse_slo  # noqa: E402
from simulator.interval import half_width  # noqa: E402
from simulator.simulation import simulate_in_memory  # noqa: E402
from simulator.trials.candidate import Candidate  # noqa: E402
from simulator.trials.plan import carry_out  # noqa: E402
from simulator.trials.trial import Trial  # noqa: E402
from traces.command_line import new_app, new_console, new_table, run  # noqa: E402
from traces.demand import Demand  # noqa: E402
from traces.metrics import measure  # noqa: E402
from traces.run_record import RunRecord  # noqa: E402

DATA = Path(os.environ.get("CHARIOTEER_DATA", ROOT.parent / "shared" / "data"))
TRACES = {
    "azure-conv": DATA / "traces" / "AzureLLMInferenceTrace_conv.csv.gz",
    "azure-code": DATA / "traces" / "AzureLLMInferenceTrace_code.csv.gz",
}
PAPER_TBT_S = {"mistral-7b": (0.1, 0.5), "yi-34b": (0.2, 1.0)}
FACTORS = {"strict": 5, "relaxed": 25}
"""Sarathi-Serve (OSDI'24, section 5.1): targets in decode iterations of 32 sequences of 4,096 tokens."""
BUDGETS = tuple(sorted({round(256 * 2 ** (step / 8) / 32) * 32 for step in range(41)}))
FIRST = 1024
GUESS_PER_S = 2.0
LEAST_PER_S = 0.01
STEP, TOLERANCE = 0.06, 0.006
NEAR = 0.985
"""A budget that misses the SLO at this share of the best capacity so far is left out."""
SHARE = 0.95
LONGEST = 0.9
MAX_NUM_SEQS = 128
COVERAGE = 0.95
app = new_app("Slack beside the best static Sarathi-Serve budget: capacities, their ratio, and what else differs.")


@dataclass(frozen=True, kw_only=True)
class Case:
    """A model on a device, requests, and a target."""

    model: str
    source: str
    target: str
    device: str = "a100-sxm"
    tensor_parallel_size: int = 1
    gpu_memory_utilization: float = 0.9

    @property
    def name(self) -> str:
        """How the case is called on the command line."""
        usual = "" if self.gpu_memory_utilization == 0.9 else f",{self.gpu_memory_utilization:g}"
        return f"{self.model},{self.source},{self.target}{usual}"

    @property
    def demand(self) -> Demand:
        """The requests: 2,048 of a trace, or drawn from a preset."""
        return Demand(source=str(TRACES.get(self.source, self.source)), num_prompts=2048)

    @property
    def tbt_s(self) -> float:
        """The target: the paper's where it names one, else by its rule."""
        if self.model in PAPER_TBT_S and self.device == "a100-sxm":
            return PAPER_TBT_S[self.model][self.target == "relaxed"]
        deployment = Deployment(
            model=self.model, device=self.device, tensor_parallel_size=self.tensor_parallel_size, max_model_len=8192
        )
        decode_s = load_cost_model(deployment).iteration_time(Aggregates.of(decodes=32, context=4096))
        return round(FACTORS[self.target] * decode_s, 3)

    @property
    def slo(self) -> Slo:
        """What capacity means."""
        return parse_slo(f"tbt:{1e3 * self.tbt_s:g}")

    def candidate(self, choice: PolicyChoice) -> Candidate:
        """Return a policy on the case's deployment."""
        return Candidate(
            choice=choice,
            model=self.model,
            device=self.device,
            max_model_len=-(-self.demand.longest // 256) * 256,
            tensor_parallel_size=self.tensor_parallel_size,
            gpu_memory_utilization=self.gpu_memory_utilization,
        )

    def static(self, budget: int) -> Candidate:
        """Return Sarathi-Serve with a budget."""
        return self.candidate(choose("sarathi-serve", max_num_seqs=MAX_NUM_SEQS, max_num_batched_tokens=budget))

    def in_order(self, candidate: Candidate) -> Candidate:
        """Return the same in order of arrival.

        All requests at once tell how fast they are served. Slack would then run all short prompts before all long ones,
        and end with few of these side by side: a mix that no stream of arrivals brings.
        """
        if candidate.choice.name != "slack":
            return candidate
        return self.candidate(choose("slack", max_num_seqs=MAX_NUM_SEQS, tbt_s=self.tbt_s, patience=0.0))

    @property
    def slack(self) -> Candidate:
        """Return Slack, told the target, all else at its defaults."""
        return self.candidate(choose("slack", max_num_seqs=MAX_NUM_SEQS, tbt_s=self.tbt_s))


def cases() -> list[Case]:
    """Return the cases of the paper, and others that nothing was chosen by."""
    paper = [
        Case(model=model, source=source, target=target, tensor_parallel_size=gpus, gpu_memory_utilization=share)
        for share in (0.9, 0.85)
        for model, gpus in (("mistral-7b", 1), ("yi-34b", 2))
        for source in ("chat", "summarization")
        for target in FACTORS
    ]
    others = [
        Case(model=model, source=source, target=target, device=device, tensor_parallel_size=gpus)
        for model, device, gpus in (("llama-3.1-8b", "h100", 1), ("llama-2-70b", "a100-sxm", 4))
        for source in (*TRACES, "chat")
        for target in FACTORS
    ]
    return paper + others


@dataclass(frozen=True, kw_only=True)
class Found:
    """The capacity for one seed, and what ends it."""

    rate_per_s: float
    bound_by: str


def capacity(case: Case, candidate: Candidate, seed: int, guess_per_s: float) -> Found:
    """Return the highest rate at which the SLO holds and below which the queue does not grow for ever.

    Steps down from the rate of service until it holds, then bisection. ``simulator capacity`` finds the same in fewer
    trials by the slope of the margin; Slack's is flat, just within the target, until it is not.
    """
    trials = Trials(candidate=candidate, demand=case.demand, goodput=None, seed=seed)
    served = replace(trials, candidate=case.in_order(candidate))
    service = carry_out(find_service(served, ServiceBudget(8), stability=True, like=None))
    limit = service.limit_per_s or inf

    def missed(rate_per_s: float) -> str:
        outcome = trials.at(rate_per_s).run()
        return case.slo.bound_by(outcome) if case.slo.margin(outcome) > 0 else ""

    high, bound_by = limit, SATURATION
    low = min(limit, guess_per_s)
    while reason := missed(low):
        high, bound_by = low, reason
        low *= 1 - STEP
        if low < LEAST_PER_S:
            return Found(rate_per_s=LEAST_PER_S, bound_by=bound_by)
    while high / low > 1 + TOLERANCE:
        middle = sqrt(high * low) if high < inf else low * (1 + STEP)
        if reason := missed(middle):
            high, bound_by = middle, reason
        else:
            low = middle
    return Found(rate_per_s=sqrt(low * high), bound_by=bound_by)


def capacities(case: Case, candidate: Candidate, seeds: int, guess_per_s: float) -> list[Found]:
    """Return the capacity for each seed; each search begins where the one before it ended."""
    found: list[Found] = []
    for seed in range(seeds):
        found.append(capacity(case, candidate, seed, guess_per_s))
        guess_per_s = found[-1].rate_per_s
    return found


def best_static(case: Case, seeds: int, budgets: tuple[int, ...]) -> tuple[int, list[Found]]:
    """Return the budget with the highest mean capacity over the seeds, and its capacities."""
    near: dict[int, Found] = {}
    best = 0.0
    for budget in sorted(budgets, key=lambda each: abs(log(each / FIRST))):
        candidate = case.static(budget)
        if best and case.slo.margin(Trial(candidate=candidate, demand=case.demand, rate_per_s=NEAR * best).run()) > 0:
            continue
        near[budget] = capacity(case, candidate, 0, best or GUESS_PER_S)
        best = max(best, near[budget].rate_per_s)
    kept = [budget for budget, own in near.items() if own.rate_per_s >= NEAR * best]
    every = {budget: capacities(case, case.static(budget), seeds, best) for budget in kept}
    return max(every.items(), key=lambda item: float(np.mean([log(each.rate_per_s) for each in item[1]])))


def compare(case: Case, seeds: int, budgets: tuple[int, ...]) -> dict[str, Any]:
    """Return both capacities, the interval of their ratio, and how the two differ at the same rate."""
    began_s = perf_counter()
    budget, static = best_static(case, seeds, budgets)
    slack = capacities(case, case.slack, seeds, static[0].rate_per_s)
    ratios = [log(own.rate_per_s / other.rate_per_s) for own, other in zip(slack, static, strict=True)]
    mean, half = float(np.mean(ratios)), half_width(ratios, COVERAGE)
    rate = SHARE * float(np.mean([each.rate_per_s for each in static]))
    return {
        "case": case.name,
        "device": f"{case.tensor_parallel_size} x {case.device}",
        "tbt_s": case.tbt_s,
        "budget": budget,
        "static_per_s": float(np.mean([each.rate_per_s for each in static])),
        "slack_per_s": float(np.mean([each.rate_per_s for each in slack])),
        "bound_by": [static[0].bound_by, slack[0].bound_by],
        "per_seed": [[each.rate_per_s for each in own] for own in (static, slack)],
        "ratio": exp(mean),
        "low": exp(mean - half),
        "high": exp(mean + half),
        "verdict": verdict(mean, half),
        "rate_per_s": rate,
        "at_rate": [at_rate(case, candidate, rate) for candidate in (case.static(budget), case.slack)],
        "took_s": perf_counter() - began_s,
    }


def verdict(mean: float, half: float) -> str:
    """Return which is better, if that can be told."""
    if abs(mean) <= half:
        return "cannot be told apart"
    return "slack" if mean > 0 else "static"


def at_rate(case: Case, candidate: Candidate, rate_per_s: float) -> dict[str, float]:
    """Return what users see at a rate, in seconds."""
    run = simulate_in_memory(candidate.scenario(case.demand.workload(rate_per_s, 0)), candidate.choice)
    measured = measure(run)
    return {
        "TTFT P50": measured.ttft_s.p50,
        "TTFT P99": measured.ttft_s.p99,
        **{f"TTFT {figure}, long prompts": value for figure, value in long_ttft_s(run).items()},
        "delay P50": measured.scheduling_delay_s.p50,
        "delay P99": measured.scheduling_delay_s.p99,
        "TBT mean": measured.tbt_s.mean,
        "TBT P99": measured.tbt_s.p99,
        "TPOT P50": measured.tpot_s.p50,
        "end-to-end P50": measured.end_to_end_s.p50,
        "end-to-end P99": measured.end_to_end_s.p99,
        "preemptions": float(measured.preemptions),
    }


def long_ttft_s(run: RunRecord) -> dict[str, float]:
    """Return the TTFT of the longest tenth of the prompts."""
    requests = run.requests
    long = requests.prompt_tokens >= np.quantile(requests.prompt_tokens, LONGEST)
    values = (requests.first_token_s - requests.arrival_s)[long]
    return {"P50": float(np.quantile(values, 0.5)), "P99": float(np.quantile(values, 0.99))}


@app.command()
def main(
    case: Annotated[
        list[str] | None, typer.Option(help="Words that a case's name has to hold; again for more.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=2, help="Draws of the requests.")] = 5,
    quick: Annotated[bool, typer.Option("--quick", help="Four cases, three seeds, every second budget.")] = False,
    output: Annotated[Path | None, typer.Option(help="Append a line of JSON a case to this file.")] = None,
) -> None:
    """Print one line a case, and what users see of each policy at the same rate."""
    chosen = [each for each in cases() if not case or any(words_in(words, each) for words in case)]
    if quick:
        chosen = [each for each in chosen if each.model == "mistral-7b" and each.gpu_memory_utilization == 0.9]
    found = []
    for line in lines(chosen, 3 if quick else seeds, BUDGETS[::2] if quick else BUDGETS):
        found.append(line)
        if output is not None:
            with output.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
    show(found)


def words_in(words: str, case: Case) -> bool:
    """Whether a case's name has all of the words, as whole parts of it."""
    return set(words.split(",")) <= {str(value) for value in asdict(case).values()}


def lines(chosen: list[Case], seeds: int, budgets: tuple[int, ...]) -> Iterator[dict[str, Any]]:
    """Yield what each case comes to, and say so on standard error."""
    for case in chosen:
        line = compare(case, seeds, budgets)
        note = f"{line['ratio']:.3f} [{line['low']:.3f}, {line['high']:.3f}] {line['verdict']}"
        print(f"{case.name}: {note} ({line['took_s']:.0f} s)", file=sys.stderr, flush=True)
        yield line


def show(found: list[dict[str, Any]]) -> None:
    """Print the tables."""
    columns = ("case", "TBT <=", "static budget", "its capacity", "slack's", "ratio", "95 %", "better")
    table = new_table("Capacity, requests/s", *columns)
    for line in found:
        table.add_row(
            line["case"],
            f"{1e3 * line['tbt_s']:g} ms",
            str(line["budget"]),
            f"{line['static_per_s']:.3f}",
            f"{line['slack_per_s']:.3f}",
            f"{line['ratio']:.3f}",
            f"{line['low']:.3f} to {line['high']:.3f}",
            line["verdict"],
        )
    new_console().print(table)
    for line in found:
        static, slack = line["at_rate"]
        table = new_table(f"{line['case']} at {line['rate_per_s']:.3f} requests/s", "seconds", "static", "slack", "")
        for name in static:
            worse = slack[name] > 1.01 * static[name] + 1e-9
            table.add_row(name, f"{static[name]:.3f}", f"{slack[name]:.3f}", "slack loses" if worse else "")
        new_console().print(table)


if __name__ == "__main__":
    run(app, "bench/slack.py")
