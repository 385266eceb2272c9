"""The options that the commands share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from engine.session import EngineSettings

MODEL, SCHEDULER, MEMORY, SAMPLING, WORKLOAD, OUTPUT = "Model", "Scheduler", "Memory", "Sampling", "Workload", "Output"

Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help="A folder with config.json and safetensors; with --load-format dummy also a config.json or a preset "
        "such as llama-60m.",
        rich_help_panel=MODEL,
    ),
]
LoadFormat = Annotated[
    str, typer.Option("--load-format", help="safetensors, or dummy for random weights.", rich_help_panel=MODEL)
]
Dtype = Annotated[
    str | None,
    typer.Option("--dtype", help="float32, bfloat16 or float16. Default: the config's.", rich_help_panel=MODEL),
]
Device = Annotated[str, typer.Option("--device", "-d", help="cpu, cuda or cuda:N.", rich_help_panel=MODEL)]
AttentionBackend = Annotated[
    str,
    typer.Option(
        "--attention-backend",
        help="What computes attention: sdpa, triton, flashinfer, or auto: triton on CUDA, else sdpa.",
        rich_help_panel=MODEL,
    ),
]
EnforceEager = Annotated[
    bool,
    typer.Option("--enforce-eager", help="Without CUDA graphs, which are there on CUDA alone.", rich_help_panel=MODEL),
]
TorchCompile = Annotated[
    bool,
    typer.Option("--torch-compile", help="Compile the model, which takes minutes at first.", rich_help_panel=MODEL),
]
Threads = Annotated[int, typer.Option("--threads", help="Threads that compute, on a CPU.", rich_help_panel=MODEL)]
Seed = Annotated[int, typer.Option("--seed", help="Seed of every random draw.", rich_help_panel=MODEL)]
Policy = Annotated[
    str,
    typer.Option(
        "--policy",
        "-p",
        help="faster-transformer, orca, vllm, sarathi, sarathi-serve, hybrid-only, chunked-only, vllm-v1, slack; or a "
        "policy.json.",
        rich_help_panel=SCHEDULER,
    ),
]
MaxNumSeqs = Annotated[
    int | None, typer.Option("--max-num-seqs", help="Most sequences resident at once.", rich_help_panel=SCHEDULER)
]
MaxNumBatchedTokens = Annotated[
    int | None,
    typer.Option(
        "--max-num-batched-tokens",
        help="Token budget of an iteration, of a policy with one.",
        rich_help_panel=SCHEDULER,
    ),
]
MaxModelLen = Annotated[
    int | None,
    typer.Option(
        "--max-model-len",
        help="Longest prompt plus output. Default: that of the longest request, rounded up to a multiple of 256, "
        "within what the model was trained for.",
        rich_help_panel=MEMORY,
    ),
]
BlockSize = Annotated[int, typer.Option("--block-size", help="Tokens a KV block holds.", rich_help_panel=MEMORY)]
NumGpuBlocksOverride = Annotated[
    int | None,
    typer.Option(
        "--num-gpu-blocks-override",
        help="KV blocks there are. Default: what residents can fill, within 1 GiB on a CPU.",
        rich_help_panel=MEMORY,
    ),
]
GpuMemoryUtilization = Annotated[
    float | None,
    typer.Option(
        "--gpu-memory-utilization",
        help="Share of a GPU's memory for weights and KV cache. Default: 0.9.",
        rich_help_panel=MEMORY,
    ),
]
Profile = Annotated[
    str | None,
    typer.Option(
        "--profile",
        help="What a policy that asks a cost model (slack) is told: a folder that python -m profiler or engine profile "
        "wrote, or a fit. Default: the one that policy.json was predicted with; else, on a GPU, the coefficients that "
        "ship.",
        rich_help_panel=SCHEDULER,
    ),
]
Goodput = Annotated[
    list[str] | None,
    typer.Option(
        "--goodput",
        help="Latency targets in ms that a request must meet to count, e.g. --goodput 'ttft:500 tpot:50'.",
        rich_help_panel=OUTPUT,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.", rich_help_panel=OUTPUT)]


def settings_of(given: dict[str, Any]) -> EngineSettings:
    """Return the engine's settings among a command's options; those that it has no option for keep their defaults."""
    from dataclasses import fields

    from engine.session import EngineSettings

    return EngineSettings(**{field.name: given[field.name] for field in fields(EngineSettings) if field.name in given})


def quiet() -> None:
    """Keep transformers' notices and bars off the terminal: what matters of them is raised as an error."""
    from transformers.utils import logging

    notices: Any = logging
    notices.set_verbosity_error()
    notices.disable_progress_bar()
