"""``python -m engine bench``: throughput and latency, with the options and words of ``vllm bench``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from engine import options
from traces.command_line import new_app

app = new_app("Measure the engine on this machine, with the options and words of vllm bench.")

Output = Annotated[
    Path | None,
    typer.Option("--output", "--output-json", "-o", help="A JSON file to write.", rich_help_panel=options.OUTPUT),
]


@app.callback()
def _commands() -> None: ...


@app.command("throughput", no_args_is_help=True)
def throughput_command(
    model: options.Model,
    dataset_name: Annotated[
        str,
        typer.Option(
            "--dataset-name",
            "--dataset",
            help="random; or nano-vllm: 256 requests, prompts and outputs of 100 to 1024 tokens.",
            rich_help_panel=options.WORKLOAD,
        ),
    ] = "random",
    workload: Annotated[
        str | None,
        typer.Option(
            "--workload",
            help="A trace (Azure, Mooncake, Vidur, LLMServingSim) or preset (chat) instead: its lengths alone count.",
            rich_help_panel=options.WORKLOAD,
        ),
    ] = None,
    num_prompts: Annotated[
        int | None,
        typer.Option(
            "--num-prompts",
            help="Only so many requests. Default: 1000, 256, or all of a trace.",
            rich_help_panel=options.WORKLOAD,
        ),
    ] = None,
    input_len: Annotated[
        int, typer.Option("--input-len", help="Prompt tokens, of random.", rich_help_panel=options.WORKLOAD)
    ] = 1024,
    output_len: Annotated[
        int, typer.Option("--output-len", help="Output tokens, of random.", rich_help_panel=options.WORKLOAD)
    ] = 128,
    range_ratio: Annotated[
        float,
        typer.Option(
            "--random-range-ratio",
            "--range-ratio",
            help="Lengths are uniform in length x (1 ± this), of random.",
            rich_help_panel=options.WORKLOAD,
        ),
    ] = 0.0,
    length_scale: Annotated[
        float,
        typer.Option(
            "--length-scale",
            help="Multiply prompt and output lengths, for a model of short contexts.",
            rich_help_panel=options.WORKLOAD,
        ),
    ] = 1.0,
    output: Output = None,
    load_format: options.LoadFormat = "safetensors",
    dtype: options.Dtype = None,
    device: options.Device = "cpu",
    attention_backend: options.AttentionBackend = "auto",
    enforce_eager: options.EnforceEager = False,
    torch_compile: options.TorchCompile = False,
    threads: options.Threads = 1,
    seed: options.Seed = 0,
    policy: options.Policy = "vllm-v1",
    profile: options.Profile = None,
    max_num_seqs: options.MaxNumSeqs = None,
    max_num_batched_tokens: options.MaxNumBatchedTokens = None,
    max_model_len: options.MaxModelLen = None,
    block_size: options.BlockSize = 16,
    num_gpu_blocks_override: options.NumGpuBlocksOverride = None,
    gpu_memory_utilization: options.GpuMemoryUtilization = None,
    goodput: options.Goodput = None,
    json: options.Json = False,
) -> None:
    """Serve many requests that are all there at once.

    Example: python -m engine bench throughput --model llama-60m --load-format dummy --input-len 128 --num-prompts 32
    """
    given = dict(locals())
    options.quiet()
    from engine.bench_command import bench_throughput
    from engine.bench_workload import BenchWorkload

    asked = BenchWorkload(
        dataset=dataset_name,
        workload=workload,
        num_prompts=num_prompts,
        input_len=input_len,
        output_len=output_len,
        range_ratio=range_ratio,
        length_scale=length_scale,
    )
    bench_throughput(options.settings_of(given), asked, goodput=goodput, output=output, as_json=json)


@app.command("latency", no_args_is_help=True)
def latency_command(
    model: options.Model,
    batch_size: Annotated[
        int, typer.Option("--batch-size", help="Requests of a batch.", rich_help_panel=options.WORKLOAD)
    ] = 8,
    input_len: Annotated[
        int, typer.Option("--input-len", help="Prompt tokens of each.", rich_help_panel=options.WORKLOAD)
    ] = 32,
    output_len: Annotated[
        int, typer.Option("--output-len", help="Output tokens of each.", rich_help_panel=options.WORKLOAD)
    ] = 128,
    num_iters_warmup: Annotated[
        int, typer.Option("--num-iters-warmup", help="Batches before the clock.", rich_help_panel=options.WORKLOAD)
    ] = 10,
    num_iters: Annotated[
        int, typer.Option("--num-iters", help="Batches under the clock.", rich_help_panel=options.WORKLOAD)
    ] = 30,
    output: Output = None,
    load_format: options.LoadFormat = "safetensors",
    dtype: options.Dtype = None,
    device: options.Device = "cpu",
    attention_backend: options.AttentionBackend = "auto",
    enforce_eager: options.EnforceEager = False,
    torch_compile: options.TorchCompile = False,
    threads: options.Threads = 1,
    seed: options.Seed = 0,
    policy: options.Policy = "vllm-v1",
    profile: options.Profile = None,
    max_num_seqs: options.MaxNumSeqs = None,
    max_num_batched_tokens: options.MaxNumBatchedTokens = None,
    max_model_len: options.MaxModelLen = None,
    block_size: options.BlockSize = 16,
    num_gpu_blocks_override: options.NumGpuBlocksOverride = None,
    gpu_memory_utilization: options.GpuMemoryUtilization = None,
    json: options.Json = False,
) -> None:
    """Serve one batch of equal requests, again and again.

    Example: python -m engine bench latency --model llama-60m --load-format dummy --output-len 16 --num-iters 5
    """
    given = dict(locals())
    options.quiet()
    from engine.bench_command import bench_latency
    from engine.bench_latency import LatencySettings

    asked = LatencySettings(
        batch_size=batch_size,
        input_len=input_len,
        output_len=output_len,
        num_iters_warmup=num_iters_warmup,
        num_iters=num_iters,
    )
    bench_latency(options.settings_of(given), asked, output=output, as_json=json)
