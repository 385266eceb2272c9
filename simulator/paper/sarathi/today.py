"""What SARATHI gains on today's devices with today's engines (beyond the papers)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from policies.catalog import PolicyChoice, choose
from profiler.aggregates import Aggregates
from simulator.paper.basis import basis
from simulator.paper.experiment import BEYOND, Experiment, Findings, Table
from simulator.paper.sarathi.batch_limit import largest_batch
from simulator.paper.sarathi.decoding import decode_speedup
from simulator.paper.sarathi.engine import Engine
from simulator.paper.sarathi.offline import Load, gain, orca_best, sarathi
from simulator.paper.sarathi.pd_ratio import Curve, gains
from simulator.paper.sarathi.today_panels import chunk_panel, ratio_panel, speedup_panel
from simulator.trials.plan import Plan, in_steps

DEVICES = ("a6000", "a100-sxm", "h100", "h200")
MODELS = {"llama-13b": DEVICES, "llama-33b": DEVICES[1:]}
"""Devices that the weights and some requests fit."""
LENGTH, SEATS = 2048, 10
"""Tokens of a request, and the paper's largest batch of these on the A6000."""
CHUNKS = (128, 256, 512, 1024, 2048)
"""Up to a whole request: the last is Orca's best case."""
RATIOS = (2.0, 5.0, 10.0, 20.0, 40.0, 80.0, 200.0)
COMPARED_AT = 28.0
"""P:D at which policies are compared: that of the paper's peak at 2K."""
TBT_S = 0.1
"""What Slack is asked for."""
LONG = 32
"""Times that seats are filled where policies are compared."""
Curves = Mapping[int, Curve]
"""Gains over P:D by chunk."""


def plan(scratch: Path) -> Plan[Findings]:  # noqa: ARG001
    """Simulate all devices with both engines, and beside other policies with today's."""
    engines = {eager: [Engine(device=device, eager=eager) for device in DEVICES] for eager in (True, False)}
    swept = yield from in_steps({engine: partial(sweep, engine, SEATS) for both in engines.values() for engine in both})
    later: dict[str, Callable[[], Table]] = {
        "models": _models_table,
        "policies, equal seats": partial(_policies_table, SEATS, engines[False]),
        "policies, all seats": partial(_policies_table, None, engines[False]),
    }
    tables = yield from in_steps(later)
    now = {engine.device: swept[engine] for engine in engines[False]}
    return Findings(
        findings=(),
        panels=(
            speedup_panel({engine: speedups(engine) for both in engines.values() for engine in both}),
            chunk_panel({engine: peaks(curves) for engine, curves in swept.items()}),
            ratio_panel(now, CHUNKS),
        ),
        stands_on=tuple(basis(engine.deployment) for engine in engines[False]),
        tables=(_gains_table(engines, swept), _prompts_table(engines[False]), *tables.values()),
        notes=(
            f"Requests of {LENGTH:,} tokens; the gain is throughput over that of FasterTransformer's batches on the "
            "same device with the same engine. Of each chunk the P:D that suits it best counts, unless it is said.",
            "An engine as it was launches kernels one by one; as it is, it runs CUDA graphs. Everything else is the "
            "same, so this is a difference of launches, not of the kernels of 2023.",
            "The baseline runs all prompts in one batch. On the H100 matrix products were measured to slow down in "
            "batches that large; as much of the gain there as the table of prompts says comes of smaller batches.",
            "The tables that ship for the A100 and the H100 hold no chunk after a past: what later chunks of a prompt "
            "take there is physics, fitted to whole prompts. The H200 stands on the H100's coefficients.",
            f"Slack is told to keep the time between tokens at {1e3 * TBT_S:.0f} ms, and fills it with prompts. What "
            f"it runs changes for a while, so policies are compared while the seats are filled {LONG} times.",
        ),
    )


def speedups(engine: Engine) -> dict[int, float]:
    """Return decode speedups at 1K with chunk 256, by batch, up to a hundred decodes or what fits."""
    most = min(largest_batch(engine.deployment, 1024), 96)
    batches = [batch for batch in (2, 4, 6, 8, 12, 18, 24, 32, 48, 64, 96) if batch <= most]
    return {batch: decode_speedup(engine.costs, chunk=256, batch=batch, context=1024) for batch in batches}


def sweep(engine: Engine, seats: int) -> dict[int, Curve]:
    """Return gains over P:D by chunk."""
    balanced = {Load.balanced(chunk, length=LENGTH, seats=seats) for chunk in CHUNKS if chunk > seats}
    loads = balanced | {Load.at(ratio, length=LENGTH, seats=seats) for ratio in RATIOS}
    return gains(engine.costs, CHUNKS, sorted(loads, key=lambda load: load.ratio))


def peaks(curves: Curves) -> dict[int, float]:
    """Return the highest gain of each chunk."""
    return {chunk: max(curve.values()) for chunk, curve in curves.items()}


def best_chunk(curves: Curves) -> int:
    """Return the chunk with the highest gain of all."""
    highest = peaks(curves)
    return max(highest, key=lambda chunk: highest[chunk])


def compared(load: Load, chunk: int) -> dict[str, PolicyChoice]:
    """Return the policies that are set beside each other."""
    return {
        "Orca, best case": orca_best(load),
        "SARATHI": sarathi(load, chunk),
        "vLLM v1": choose("vllm-v1", max_num_seqs=load.seats, max_num_batched_tokens=chunk),
        "Slack": choose("slack", max_num_seqs=load.seats, tbt_s=TBT_S, watermark=0.0),
    }


def _gains_table(engines: Mapping[bool, Sequence[Engine]], swept: Mapping[Engine, Curves]) -> Table:
    rows = []
    for was, now in zip(engines[True], engines[False], strict=True):
        then, today = swept[was], swept[now]
        cells = [f"{peaks(each)[256]:.2f}" for each in (then, today)]
        best = [f"{max(peaks(each).values()):.2f} at {best_chunk(each)}" for each in (then, today)]
        orca = [f"{peaks(each)[LENGTH]:.2f}" for each in (then, today)]
        rows.append((now.deployment.hardware.title, *cells, *best, *orca))
    columns = ("256", "best chunk", "Orca, best case")
    head = ("device", *(f"{name}, {how}" for name in columns for how in ("eager", "graphs")))
    return Table(title=f"Gain over the baseline, LLaMA-13B, batch {SEATS} (x)", head=head, rows=tuple(rows))


def _prompts_table(engines: Sequence[Engine]) -> Table:
    prompt, rows = Load.at(COMPARED_AT, length=LENGTH, seats=SEATS).prompt_tokens, []
    for engine in engines:
        alone_s, together_s = (
            engine.costs.iteration_time(Aggregates.of(*[prompt] * count)) / count for count in (1, SEATS)
        )
        cells = (f"{1e3 * alone_s:.1f}", f"{1e3 * together_s:.1f}", f"{100 * (together_s / alone_s - 1):+.1f} %")
        rows.append((engine.deployment.hardware.title, *cells))
    head = ("device", "alone (ms)", f"{SEATS} in a batch (ms each)", "slower")
    return Table(title=f"A prompt of {prompt:,} tokens, LLaMA-13B, CUDA graphs", head=head, rows=tuple(rows))


def _models_table() -> Table:
    rows = []
    for model, devices in MODELS.items():
        for device in devices:
            engine = Engine(model=model, device=device, eager=False)
            seats = largest_batch(engine.deployment, LENGTH)
            curves = sweep(engine, seats)
            best = best_chunk(curves)
            speedup = decode_speedup(engine.costs, chunk=best, batch=seats, context=LENGTH)
            cells = (str(seats), f"{speedup:.1f}", f"{peaks(curves)[256]:.2f}", str(best), f"{peaks(curves)[best]:.2f}")
            rows.append((engine.deployment.spec.name, engine.deployment.hardware.title, *cells))
    head = ("model", "device", "batch", "decode speedup", "gain, 256", "best chunk", "gain")
    return Table(title="The largest batch that fits, CUDA graphs (x)", head=head, rows=tuple(rows))


def _policies_table(seats: int | None, engines: Sequence[Engine]) -> Table:
    rows = []
    for engine in engines:
        batch = seats or largest_batch(engine.deployment, LENGTH)
        load = Load.at(COMPARED_AT, length=LENGTH, seats=batch)
        at_best = {chunk: gain(engine.costs, load, sarathi(load, chunk)) for chunk in CHUNKS[1:-1]}
        chunk = max(at_best, key=lambda each: at_best[each])
        cells = [f"{gain(engine.costs, load, choice, LONG):.2f}" for choice in compared(load, chunk).values()]
        rows.append((engine.deployment.hardware.title, str(batch), str(chunk), *cells))
    head = ("device", "batch", "chunk", *compared(Load.at(COMPARED_AT, length=LENGTH, seats=SEATS), 256))
    which = f"batch {seats}" if seats else "the largest batch that fits"
    title = f"Policies at P:D {COMPARED_AT:g}, {which}, CUDA graphs: gain over the baseline (x)"
    return Table(title=title, head=head, rows=tuple(rows))


EXPERIMENT = Experiment(
    name="sarathi-today",
    title="SARATHI today: other devices, CUDA graphs, other policies",
    paper=BEYOND,
    shows="Whether the gain survives newer devices and an engine with CUDA graphs, and which chunk is best there.",
    about_s=20,
    plan=plan,
)
