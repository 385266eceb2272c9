"""``python -m engine validate``: its options, and which of its two questions they ask."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from engine import options
from traces.errors import InputError

OF_THE_FILE = {
    "workload": "WORKLOAD",
    "policies": "--policies",
    "loads": "--loads",
    "num_prompts": "--num-prompts",
    "length_scale": "--length-scale",
    "burstiness": "--burstiness",
    "sort": "--sort",
    "budget": "--budget",
    "dtype": "--dtype",
    "seed": "--seed",
    "max_num_seqs": "--max-num-seqs",
    "max_num_batched_tokens": "--max-num-batched-tokens",
    "max_model_len": "--max-model-len",
    "block_size": "--block-size",
}
"""What a policy.json says itself, by parameter."""


def validate_command(
    context: typer.Context,
    workload: Annotated[
        str, typer.Argument(help="A preset (chat, summarization), or a trace (Azure, Mooncake, Vidur, LLMServingSim).")
    ] = "chat",
    *,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="A folder with config.json and safetensors; with --load-format dummy also a config.json or a preset "
            "such as llama-60m. With --policy: that of the prediction.",
            rich_help_panel=options.MODEL,
        ),
    ] = None,
    policy: Annotated[
        Path | None,
        typer.Option(
            "--policy",
            help="A policy.json that `python -m simulator search` wrote: is what it predicts what this engine does? "
            "It says the workload, the settings, the model and its memory, with random weights unless --load-format.",
            rich_help_panel=options.SCHEDULER,
        ),
    ] = None,
    repeats: Annotated[
        int | None,
        typer.Option(
            "--repeats",
            help="With --policy: how often each setting serves the workload, in turns; medians are judged. Default: 1.",
            rich_help_panel=options.WORKLOAD,
        ),
    ] = None,
    policies: Annotated[
        str,
        typer.Option(
            "--policies",
            "-p",
            help="Two or more, separated by commas, each with settings of its own if need be "
            "(sarathi-serve:max_num_batched_tokens=128), or paths of policy.json files.",
            rich_help_panel=options.SCHEDULER,
        ),
    ] = "orca,vllm,sarathi-serve",
    loads: Annotated[
        str,
        typer.Option(
            "--loads",
            help="Names and rates, as shares of the median of what the policies sustain by simulation.",
            rich_help_panel=options.WORKLOAD,
        ),
    ] = "below:0.5,near:0.9,above:1.5",
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder to write.", rich_help_panel=options.OUTPUT)
    ] = Path("out/validation"),
    num_prompts: Annotated[
        int | None,
        typer.Option("--num-prompts", help="Only so many requests.", rich_help_panel=options.WORKLOAD),
    ] = None,
    length_scale: Annotated[
        float,
        typer.Option(
            "--length-scale",
            help="Multiply prompt and output lengths, for a model of short contexts.",
            rich_help_panel=options.WORKLOAD,
        ),
    ] = 1.0,
    burstiness: Annotated[
        float,
        typer.Option("--burstiness", help="Shape of random gaps: 1 is Poisson.", rich_help_panel=options.WORKLOAD),
    ] = 1.0,
    sort: Annotated[
        bool,
        typer.Option("--sort", help="Sort a trace whose times run backwards.", rich_help_panel=options.WORKLOAD),
    ] = False,
    budget: Annotated[
        float, typer.Option("--budget", metavar="SECONDS", help="For measuring the machine, beside the replays.")
    ] = 60.0,
    load_format: options.LoadFormat = "safetensors",
    dtype: options.Dtype = None,
    device: options.Device = "cpu",
    attention_backend: options.AttentionBackend = "auto",
    enforce_eager: options.EnforceEager = False,
    torch_compile: options.TorchCompile = False,
    threads: options.Threads = 1,
    seed: options.Seed = 0,
    max_num_seqs: options.MaxNumSeqs = None,
    max_num_batched_tokens: options.MaxNumBatchedTokens = None,
    max_model_len: options.MaxModelLen = None,
    block_size: options.BlockSize = 16,
    num_gpu_blocks_override: options.NumGpuBlocksOverride = None,
    gpu_memory_utilization: options.GpuMemoryUtilization = None,
    json: options.Json = False,
) -> None:
    """Try what the simulator promises: on a workload of your own, or as a search predicted it.

    Without --policy: measures this machine with the engine's own runner, fits the cost
    model, then simulates and replays the workload under every policy, below, near and
    above what it can sustain. Prints and draws predicted beside measured: latencies,
    throughput, every iteration, and which policy is best by each.

    With --policy: serves the very workload that a search predicted about, under its best
    settings, and says of each metric whether it lies within the predicted interval,
    whether the settings come in the predicted order, and whether the SLO was kept.
    Status 0: so it is, 1: it is not.

    Example: python -m engine validate chat --num-prompts 64 --length-scale 0.06 --model llama-60m --load-format dummy

    Example: python -m engine validate --policy out/search/policy.json
    """
    given = {**locals(), "policy": "vllm-v1"}
    if policy is not None:
        raise typer.Exit(_of_policy(context, given, policy))
    if repeats is not None:
        raise InputError("goes with --policy", where="--repeats", expected="--policy policy.json")
    if model is None:
        raise InputError("is missing", where="--model", expected="a model, or --policy policy.json")
    options.quiet()
    from engine.validate_command import ValidationSettings, validate

    asked = ValidationSettings(
        workload=workload,
        output=output,
        policies=policies,
        loads=loads,
        num_prompts=num_prompts,
        length_scale=length_scale,
        burstiness=burstiness,
        sort=sort,
        budget=budget,
    )
    validate(options.settings_of(given), asked, as_json=json)


def _of_policy(context: typer.Context, given: dict[str, Any], policy: Path) -> int:
    """Judge a search's prediction; return the exit status."""
    from policies.catalog import read_policy
    from policies.prediction import read_prediction

    for name, option in OF_THE_FILE.items():
        if _was_given(context, name):
            raise InputError("does not go with --policy, which says it", where=option, expected="one of the two")
    prediction = read_prediction(read_policy(policy), where=policy)
    options.quiet()
    from engine.policy_validation import PolicySettings, validate_policy

    weights = given["load_format"] if _was_given(context, "load_format") else "dummy"
    asked = PolicySettings(
        policy=policy,
        output=given["output"],
        model=given["model"],
        repeats=1 if given["repeats"] is None else given["repeats"],
    )
    settings = options.settings_of({**given, "model": given["model"] or "", "load_format": weights})
    return validate_policy(settings, asked, prediction, as_json=given["json"])


def _was_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
