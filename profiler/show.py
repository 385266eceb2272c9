"""``profiler show``: what a cost model knows, where from, how well, and what iterations cost by it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from profiler.aggregates import Aggregates
    from profiler.cost_model import CostModel
    from profiler.deployment import Deployment
    from profiler.fitted import FittedOp
    from profiler.published import Published

PREFILLS = (128, 256, 257, 512, 1024, 2048, 4096, 8192)
DECODES = (1, 4, 16, 32, 64, 128, 256)
CONTEXT = 1024
COVERAGE = 0.9


def show_command(
    model: Annotated[str | None, typer.Option(help="Preset, or a Hugging Face config.json.")] = None,
    device: Annotated[str | None, typer.Option(help="Preset, or a JSON file.")] = None,
    deployment: Annotated[
        Path | None, typer.Option(help="JSON file of a deployment, in place of the other options.")
    ] = None,
    profile: Annotated[
        Path | None, typer.Option(help="Profile folder to fit, in place of what ships with the package.")
    ] = None,
    tensor_parallel_size: Annotated[int, typer.Option(min=1)] = 1,
    pipeline_parallel_size: Annotated[int, typer.Option(min=1)] = 1,
    gpu_memory_utilization: Annotated[float, typer.Option()] = 0.9,
    block_size: Annotated[int, typer.Option(min=1)] = 16,
    max_model_len: Annotated[int | None, typer.Option(min=1)] = None,
    max_num_batched_tokens: Annotated[int, typer.Option(min=1)] = 8192,
    interval: Annotated[
        bool, typer.Option("--interval/--no-interval", help="Print bands that should hold 90 % of iterations.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Show a deployment's cost model: where it comes from, how well it fits, what it was measured on, and what
    iterations cost, with 90 % bands; a * marks those outside of what was measured.

    For the models and devices of the SARATHI and Sarathi-Serve papers the published times stand beside the
    predictions; nothing was fitted to them.
    """
    from profiler.cost_model import load_cost_model
    from profiler.deployment import Deployment
    from traces.errors import InputError

    if deployment is not None:
        target = Deployment.load(deployment)
    elif model is None or device is None:
        raise InputError("nothing to show", expected="--model and --device, or --deployment FILE")
    else:
        target = Deployment(
            model=model,
            device=device,
            tensor_parallel_size=tensor_parallel_size,
            pipeline_parallel_size=pipeline_parallel_size,
            gpu_memory_utilization=gpu_memory_utilization,
            block_size=block_size,
            max_model_len=max_model_len,
            max_num_batched_tokens=max_num_batched_tokens,
        )
    report = describe(load_cost_model(target, profile=profile))
    if as_json:
        typer.echo(json.dumps(report, indent=2))
        return
    from profiler.show_tables import print_report

    print_report(report, intervals=interval)


def describe(cost_model: CostModel) -> dict[str, Any]:
    """Return all that is shown, seconds and bytes, as JSON would hold it."""
    target = cost_model.deployment
    return {
        "deployment": target.to_json(),
        "title": f"{target.spec.name} on {target.gpus} x {target.hardware.title}",
        "cost_model": cost_model.describe(),
        "origin": dict(cost_model.fitted.origin),
        "memory": _memory(target),
        "measured": {name: _measured(op) for name, op in cost_model.fitted.ops.items()},
        "iterations": [_iteration(cost_model, label, batch) for label, batch in _ladder()],
        "published": _published(cost_model),
    }


def _ladder() -> list[tuple[str, Aggregates]]:
    from profiler.aggregates import Aggregates

    rows = [(f"prefill {tokens}", Aggregates.of(tokens)) for tokens in PREFILLS]
    rows += [(f"decode {count}", Aggregates.of(decodes=count, context=CONTEXT)) for count in DECODES]
    mixed = Aggregates.of(480, past=CONTEXT, decodes=32, context=CONTEXT)
    return [*rows, (f"prefill 480 after {CONTEXT} + decode 32", mixed)]


def _measured(op: FittedOp) -> dict[str, list[float]] | None:
    """Return the least and most of what an op was measured on by quantity, None where its fit does not say."""
    return None if op.measured is None else op.measured.to_json()


def _memory(target: Deployment) -> dict[str, Any]:
    stages = target.stage_memory
    return {
        "memory_bytes": target.hardware.memory_bytes,
        "weight_bytes": [stage.weights for stage in stages],
        "activation_bytes": [stage.activations for stage in stages],
        "reserve_bytes": stages[0].reserve,
        "kv_blocks": target.kv_blocks,
        "kv_tokens": target.kv_tokens,
        "context_limit": target.context_limit,
    }


def _iteration(cost_model: CostModel, label: str, batch: Aggregates) -> dict[str, Any]:
    """Return the seconds of one batch over all stages, one after the other, with its parts."""
    stages = range(cost_model.deployment.pipeline_parallel_size)
    parts = [cost_model.breakdown(batch, stage) for stage in stages]
    bands = [cost_model.interval(batch, COVERAGE, stage) for stage in stages]
    return {
        "batch": label,
        "time_s": sum(cost_model.iteration_time(batch, stage) for stage in stages),
        "low_s": sum(low for low, _ in bands),
        "high_s": sum(high for _, high in bands),
        "outside": cost_model.profiled_range().outside(batch),
        "parts_s": {group: sum(part[group] for part in parts) for group in parts[0]},
    }


def _published(cost_model: CostModel) -> list[dict[str, Any]]:
    from profiler.published import published_for

    target = cost_model.deployment
    rows = published_for(target.spec.name, target.hardware.name, target.tensor_parallel_size)
    return [_beside(cost_model, row) for row in rows]


def _beside(cost_model: CostModel, row: Published) -> dict[str, Any]:
    shown = _iteration(cost_model, row.label, row.batch)
    parts = shown["parts_s"]
    attention_s = parts["prefill attention"] + parts["decode attention"]
    linear_s = shown["time_s"] - attention_s if row.linear_holds_rest else parts["linear"]
    predicted = {"total_s": shown["time_s"], "linear_s": linear_s, "attention_s": attention_s}
    published = {"total_s": row.total_s, "linear_s": row.linear_s, "attention_s": row.attention_s}
    return {"batch": row.label, "predicted": predicted, "published": published, "source": row.source}
