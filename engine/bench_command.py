"""What ``bench throughput`` and ``bench latency`` do: check, serve, print."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engine import hardware
from engine.bench_latency import LatencySettings, measure_latency
from engine.bench_measure import measure_throughput
from engine.bench_table import print_latency, print_throughput
from engine.bench_workload import BenchWorkload
from engine.engine import Engine
from engine.progress import progress_bar
from engine.session import EngineSettings, build_engine, policy_choice
from traces.files import whole_file
from traces.goodput import parse_goodput


def bench_throughput(
    settings: EngineSettings,
    asked: BenchWorkload,
    *,
    goodput: Sequence[str] | None = None,
    output: Path | None = None,
    as_json: bool = False,
) -> None:
    """Serve all requests at once and print what came out; write it to ``output`` if there is one.

    Raises
    ------
    InputError
        If anything asked for is wrong; nothing is written then.
    """
    rule = parse_goodput(list(goodput)) if goodput else None
    choice = policy_choice(settings)
    workload = asked.open(settings.seed)
    with _written(output, as_json) as document:
        engine = build_engine(settings, choice, longest=int(workload.total_tokens.max()))
        with progress_bar("requests", len(workload)) as on_progress:
            result = measure_throughput(engine, workload, goodput=rule, on_progress=on_progress)
        document.update({"dataset": workload.name, **_facts(engine, settings), **result.as_dict()})
        if not as_json:
            print_throughput(f"{workload.name}, {_title(engine, settings)}", result)


def bench_latency(
    settings: EngineSettings, asked: LatencySettings, *, output: Path | None = None, as_json: bool = False
) -> None:
    """Serve one batch again and again and print how long it takes; write it to ``output`` if there is one.

    Raises
    ------
    InputError
        If anything asked for is wrong; nothing is written then.
    """
    with _written(output, as_json) as document:
        engine = build_engine(settings, policy_choice(settings), longest=asked.input_len + asked.output_len)
        with progress_bar("batches", asked.num_iters_warmup + asked.num_iters) as on_progress:
            result = measure_latency(engine, asked, on_progress=on_progress)
        batch = {name: getattr(asked, name) for name in ("batch_size", "input_len", "output_len")}
        document.update({**batch, **_facts(engine, settings), **result.as_dict()})
        if not as_json:
            shape = f"{asked.batch_size} x {asked.input_len}/{asked.output_len} tokens"
            print_latency(f"{shape}, {_title(engine, settings)}", result)


def _title(engine: Engine, settings: EngineSettings) -> str:
    facts = _facts(engine, settings)
    return f"{settings.model} ({facts['dtype']}) under {engine.policy.name} on {facts['device']}"


def _facts(engine: Engine, settings: EngineSettings) -> dict[str, Any]:
    """Return what ran, on what."""
    runner = engine.runner
    return {
        "model": settings.model,
        "dtype": str(runner.cache.layout.dtype).removeprefix("torch."),
        "policy": engine.policy.name,
        "attention": runner.backend.name,
        "device": hardware.device_name(runner.device),
        "seed": engine.seed,
        "versions": {
            **hardware.versions(),
            **{name: hardware.package_version(name) for name in ("transformers", "charioteer")},
        },
    }


@contextmanager
def _written(output: Path | None, as_json: bool) -> Iterator[dict[str, Any]]:
    """Yield a document that is written to ``output``, and printed if asked to, once the block has filled it.

    Whether it can be written is known before the block runs.
    """
    document: dict[str, Any] = {}
    if output is None:
        yield document
    else:
        with whole_file(output) as temporary:
            yield document
            temporary.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    if as_json:
        print(json.dumps(document, indent=2))
    elif output is not None:
        print(f"Written: {output}")
