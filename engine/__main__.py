"""``python -m engine``: serve prompts and clients, replay a workload on the real engine, benchmark and validate it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from engine import bench_app, options
from engine.server.serve_options import serve_command
from engine.shortage import first_line, is_shortage
from engine.validate_options import validate_command
from traces.command_line import new_app, run

app = new_app(
    "Run transformers models under the very policies that the simulator compares.\n\n"
    "Nothing is fetched: models are local folders, or random weights from a config.json or a preset "
    "(--load-format dummy)."
)


@app.command("generate", no_args_is_help=True)
def generate_command(
    prompts: Annotated[list[str] | None, typer.Argument(help="Prompts, as text.")] = None,
    *,
    model: options.Model,
    prompt_file: Annotated[Path | None, typer.Option("--prompt-file", help="A file with one prompt a line.")] = None,
    prompt_tokens: Annotated[
        list[str] | None, typer.Option("--prompt-tokens", help="A prompt as token ids, e.g. 5,17,3; again for more.")
    ] = None,
    tokens: Annotated[bool, typer.Option("--tokens", help="Print token ids; no tokenizer is needed.")] = False,
    max_tokens: Annotated[
        int, typer.Option("--max-tokens", help="Longest output.", rich_help_panel=options.SAMPLING)
    ] = 16,
    min_tokens: Annotated[
        int, typer.Option("--min-tokens", help="Shortest output.", rich_help_panel=options.SAMPLING)
    ] = 0,
    temperature: Annotated[
        float,
        typer.Option("--temperature", help="0 takes the likeliest token.", rich_help_panel=options.SAMPLING),
    ] = 1.0,
    top_k: Annotated[
        int, typer.Option("--top-k", help="Only so many of the likeliest.", rich_help_panel=options.SAMPLING)
    ] = 0,
    top_p: Annotated[
        float,
        typer.Option("--top-p", help="Only the likeliest that make up this share.", rich_help_panel=options.SAMPLING),
    ] = 1.0,
    min_p: Annotated[
        float,
        typer.Option("--min-p", help="Only those as likely as this x the likeliest.", rich_help_panel=options.SAMPLING),
    ] = 0.0,
    stop: Annotated[
        list[str] | None,
        typer.Option("--stop", help="A string at which to end; again for more.", rich_help_panel=options.SAMPLING),
    ] = None,
    stop_token_ids: Annotated[
        list[int] | None,
        typer.Option("--stop-token-ids", help="A token at which to end.", rich_help_panel=options.SAMPLING),
    ] = None,
    ignore_eos: Annotated[
        bool, typer.Option("--ignore-eos", help="Go on at the model's end token.", rich_help_panel=options.SAMPLING)
    ] = False,
    logprobs: Annotated[
        int | None,
        typer.Option(
            "--logprobs",
            help="With --json, also log probabilities: of each token and of so many of the likeliest.",
            rich_help_panel=options.SAMPLING,
        ),
    ] = None,
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
    """Complete prompts.

    Example: python -m engine generate --model llama-60m --load-format dummy --prompt-tokens 1,2,3 --tokens
    """
    given = dict(locals())
    options.quiet()
    from engine.generation import GenerationSettings, generate
    from engine.sampling import SamplingParams

    sampling = SamplingParams(
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        stop=tuple(stop or ()),
        stop_token_ids=tuple(stop_token_ids or ()),
        ignore_eos=ignore_eos,
        max_tokens=max_tokens,
        min_tokens=min_tokens,
        logprobs=logprobs,
    )
    asked = GenerationSettings(
        prompts=prompts or (),
        prompt_file=prompt_file,
        prompt_tokens=prompt_tokens or (),
        tokens=tokens,
        sampling=sampling,
    )
    raise typer.Exit(generate(options.settings_of(given), asked, as_json=json))


@app.command("replay", no_args_is_help=True)
def replay_command(
    workload: Annotated[
        str, typer.Argument(help="A trace (Azure, Mooncake, Vidur, LLMServingSim; or .gz), or a preset: chat.")
    ],
    model: options.Model,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder to write.", rich_help_panel=options.OUTPUT)
    ] = Path("out/replay"),
    num_prompts: Annotated[
        int | None,
        typer.Option("--num-prompts", help="Only so many requests.", rich_help_panel=options.WORKLOAD),
    ] = None,
    request_rate: Annotated[
        float | None,
        typer.Option(
            "--request-rate",
            help="Mean requests/s. Default: a trace's own times, else all at once.",
            rich_help_panel=options.WORKLOAD,
        ),
    ] = None,
    burstiness: Annotated[
        float,
        typer.Option("--burstiness", help="Shape of random gaps: 1 is Poisson.", rich_help_panel=options.WORKLOAD),
    ] = 1.0,
    speed: Annotated[
        float,
        typer.Option("--speed", help="Let requests arrive so many times as fast.", rich_help_panel=options.WORKLOAD),
    ] = 1.0,
    sort: Annotated[
        bool,
        typer.Option("--sort", help="Sort a trace whose times run backwards.", rich_help_panel=options.WORKLOAD),
    ] = False,
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
    """Serve a workload at its arrival times, with random prompts of the traced lengths.

    Prints a table; writes a run record (run.json, requests.parquet, iterations.parquet) as the simulator does.

    Example: python -m engine replay trace.csv --speed 2 --model llama-60m --load-format dummy --policy sarathi-serve
    """
    given = dict(locals())
    options.quiet()
    from engine.replay_command import ReplaySettings, replay_workload

    asked = ReplaySettings(
        workload=workload,
        output=output,
        num_prompts=num_prompts,
        request_rate=request_rate,
        burstiness=burstiness,
        speed=speed,
        sort=sort,
        goodput=goodput,
    )
    replay_workload(options.settings_of(given), asked, as_json=json)


@app.command("profile", no_args_is_help=True)
def profile_command(
    model: options.Model,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder to write.", rich_help_panel=options.OUTPUT)
    ] = Path("out/engine-profile"),
    budget: Annotated[float, typer.Option("--budget", metavar="SECONDS", help="How long to measure.")] = 60.0,
    load_format: options.LoadFormat = "dummy",
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
    """Measure this engine on this machine, for a search to stand on.

    Times single ops and whole iterations, as large as the limits given allow and no
    larger: say those of the largest batches that the search may choose. The folder is
    what `python -m simulator search --profile` takes; what it finds goes back to
    `python -m engine validate --policy`.

    Example: python -m engine profile --model llama-60m --max-num-seqs 16 --max-num-batched-tokens 512 \
    --max-model-len 512
    """
    given = {**locals(), "policy": "vllm-v1"}
    options.quiet()
    from engine.profile_command import ProfileSettings, profile_engine

    profile_engine(options.settings_of(given), ProfileSettings(output=output, budget=budget), as_json=json)


app.command("serve", no_args_is_help=True)(serve_command)
app.command("validate", no_args_is_help=True)(validate_command)
app.add_typer(bench_app.app, name="bench")


def main() -> None:
    """Start the command line; a device that is out of memory is one line too, and status 2."""
    try:
        run(app, "python -m engine")
    except (RuntimeError, MemoryError) as error:
        if not is_shortage(error):
            raise
        wish = "a smaller model, batch or KV cache"
        print(f"error: out of memory: {first_line(error)}; expected {wish}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
