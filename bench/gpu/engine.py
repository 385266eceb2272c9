"""Stage ``engine``: whole iterations of the engine, decodes and prefills, against the device's ceilings."""

from __future__ import annotations

import statistics
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from traces.command_line import new_app, run

if TYPE_CHECKING:
    from profiler.kernels import OpShape
    from profiler.model import Model

app = new_app("Whole iterations of the engine against the device's ceilings.")
DECODES, CONTEXT = (1, 8, 32, 64, 128), 1024
PROMPTS = (512, 2048, 8192)
QUICK_DECODES, QUICK_CONTEXT = (1, 2), 32
QUICK_PROMPTS = (16, 64)


def shapes(model: Model, quick: bool) -> list[OpShape]:
    """Return the batches: decodes at one context (spread around it), and whole prompts."""
    from profiler.iteration import DECODES as ONLY_DECODES
    from profiler.iteration import ENDS_PROMPT, OP
    from profiler.kernels import OpShape

    layout = {"heads": model.heads, "kv_heads": model.kv_heads, "head_dim": model.head_dim}
    batches, context = (QUICK_DECODES, QUICK_CONTEXT) if quick else (DECODES, CONTEXT)
    found = [OpShape(op=OP, kind=ONLY_DECODES, decodes=size, decode_context=context, **layout) for size in batches]
    prompts = QUICK_PROMPTS if quick else PROMPTS
    return found + [OpShape(op=OP, kind=ENDS_PROMPT, sequences=1, query_tokens=size, **layout) for size in prompts]


def needs(model: Model, shape: OpShape) -> tuple[float, float]:
    """Return the bytes that an iteration must read (weights but embeddings, KV) and the FLOPs that it must compute."""
    tokens = shape.sequences * shape.query_tokens + shape.decodes
    sampled = shape.sequences + shape.decodes
    weights = model.weight_bytes() - (0 if model.tied_embeddings else model.embedding_parameters * model.dtype_bytes)
    kv = model.kv_bytes_per_token() * (shape.sequences * shape.query_tokens + shape.decodes * shape.decode_context)
    linear = model.layers * sum(each.n * each.k for each in model.linears())
    head = model.head_linear()
    pairs = shape.sequences * shape.query_tokens * (shape.query_tokens + 1) // 2
    pairs += shape.decodes * shape.decode_context
    attention = 4 * model.layers * model.heads * model.head_dim * pairs
    return float(weights + kv), float(2 * linear * tokens + 2 * head.n * head.k * sampled + attention)


def title(shape: OpShape) -> str:
    """Return what a batch is called in the table."""
    if shape.decodes:
        return f"decode {shape.decodes} x {shape.decode_context}"
    return f"prefill {shape.query_tokens}"


@app.command()
def main(
    model: Annotated[str, typer.Option(help="A preset or a config.json; weights are random.")] = "llama-3.1-8b",
    device: Annotated[str, typer.Option(help="cuda or cpu.")] = "cuda",
    output: Annotated[Path, typer.Option(help="A JSON file to write.")] = Path("out/gpu/engine.json"),
    quick: Annotated[bool, typer.Option("--quick", help="Tiny sizes.")] = False,
) -> None:
    """Print the milliseconds of each batch, the least they can be, and the share that is reached."""
    from dataclasses import asdict, replace

    from ceilings import Timer, device_facts, measure_ceilings, open_device

    from engine.iterations import engine_iterations
    from profiler.model import load_model
    from traces.files import write_json

    where = open_device(device)
    ceilings = measure_ceilings(where, Timer(where), quick=quick)
    dtype = "bfloat16" if where.type == "cuda" else "float32"
    spec = replace(load_model(model), dtype=dtype)
    batches = shapes(spec, quick)
    timed = engine_iterations(model, batches, device=device, dtype=dtype)
    rows: list[dict[str, Any]] = []
    print(f"{model}, {dtype}: whole iterations, medians", flush=True)
    print(f"{'':24}{'ms':>10}{'floor ms':>10}{'reached':>9}{'tokens/s':>12}")
    for shape in batches:
        call = timed.prepare(shape)
        timed.seconds(call, 2)
        seconds = statistics.median(timed.seconds(call, 3 if quick else 15))
        floor_s = ceilings.floor_s(*needs(spec, shape))
        tokens = shape.sequences * shape.query_tokens + shape.decodes
        rows.append({"batch": title(shape), "seconds": seconds, "floor_s": floor_s, "tokens_per_s": tokens / seconds})
        share = 100 * floor_s / seconds
        print(f"{title(shape):24}{1e3 * seconds:>10.2f}{1e3 * floor_s:>10.2f}{share:>8.0f}%{tokens / seconds:>12,.0f}")
    write_json(output, {"model": model, "dtype": dtype, **device_facts(where), **asdict(ceilings), "rows": rows})


if __name__ == "__main__":
    run(app, "bench/gpu/engine.py")
