"""The command ``serve`` and its options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from engine import options

HTTP, KEYS, LIMITS = "HTTP", "Keys", "Limits"


def serve_command(
    model: options.Model,
    *,
    host: Annotated[
        str, typer.Option("--host", help="Address to listen at; 0.0.0.0 for all of them.", rich_help_panel=HTTP)
    ] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option("--port", min=0, max=65535, help="0 takes a free one, and says which.", rich_help_panel=HTTP),
    ] = 8000,
    served_model_name: Annotated[
        list[str] | None,
        typer.Option(
            "--served-model-name",
            help="What requests call the model; again for more names. Default: what --model says.",
            rich_help_panel=HTTP,
        ),
    ] = None,
    chat_template: Annotated[
        Path | None,
        typer.Option("--chat-template", help="A Jinja template. Default: the tokenizer's own.", rich_help_panel=HTTP),
    ] = None,
    api_key: Annotated[
        list[str] | None,
        typer.Option(
            "--api-key",
            help="A key that requests under /v1 must bring; again for more. Other users of this machine can see it: "
            "rather a file, or CHARIOTEER_API_KEY.",
            rich_help_panel=KEYS,
        ),
    ] = None,
    api_key_file: Annotated[
        Path | None, typer.Option("--api-key-file", help="A file with a key a line.", rich_help_panel=KEYS)
    ] = None,
    admin_key: Annotated[
        list[str] | None,
        typer.Option(
            "--admin-key",
            help="A key for /admin, which answers 403 without one; or CHARIOTEER_ADMIN_KEY.",
            rich_help_panel=KEYS,
        ),
    ] = None,
    admin_key_file: Annotated[
        Path | None, typer.Option("--admin-key-file", help="A file with a key a line.", rich_help_panel=KEYS)
    ] = None,
    max_queue: Annotated[
        int,
        typer.Option(
            "--max-queue",
            min=0,
            help="Requests beyond --max-num-seqs that may wait; others get 429 and Retry-After.",
            rich_help_panel=LIMITS,
        ),
    ] = 1024,
    max_body_bytes: Annotated[
        int, typer.Option("--max-body-bytes", min=1, help="Longer bodies get 413.", rich_help_panel=LIMITS)
    ] = 16 * 2**20,
    request_timeout: Annotated[
        float,
        typer.Option("--request-timeout", help="Seconds that a request may take; then 504.", rich_help_panel=LIMITS),
    ] = 600.0,
    read_timeout: Annotated[
        float,
        typer.Option("--read-timeout", help="Seconds that a request may take to arrive; 408.", rich_help_panel=LIMITS),
    ] = 60.0,
    write_timeout: Annotated[
        float,
        typer.Option(
            "--write-timeout",
            help="Seconds after which a client that does not read what is sent is dropped.",
            rich_help_panel=LIMITS,
        ),
    ] = 60.0,
    stall_timeout: Annotated[
        float,
        typer.Option(
            "--stall-timeout",
            help="Seconds without an iteration, while requests are in flight, after which /health answers 503 and "
            "nothing new is taken on, until there is one.",
            rich_help_panel=LIMITS,
        ),
    ] = 60.0,
    drain_timeout: Annotated[
        float,
        typer.Option("--drain-timeout", help="Seconds for what runs to finish after SIGTERM.", rich_help_panel=LIMITS),
    ] = 60.0,
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
) -> None:
    """Serve OpenAI's API: completions and chat completions, streamed or whole.

    Clients of OpenAI and of vLLM work unchanged. Keys guard /v1 alone; /health,
    /tokenize and the like are free, and /admin has keys of its own.

    A model without a tokenizer takes text as bytes: token 65 is A, and tokens from
    256 on, which no text has, read as <256>.

    The first SIGTERM (or Ctrl-C) finishes what runs, while /health answers 503 and
    nothing new is taken on; a second drops it. Where the engine breaks, requests
    get 500 or 503, and the server ends with status 1 for its supervisor to see.

    Example: python -m engine serve --model llama-60m --load-format dummy --policy sarathi-serve

    curl http://127.0.0.1:8000/v1/completions -H 'Content-Type: application/json' \
    -d '{"prompt": "Once upon a time", "max_tokens": 8}'
    """
    given = dict(locals())
    options.quiet()
    from engine.server.serving import ServeSettings, serve

    asked = ServeSettings(
        host=host,
        port=port,
        served_model_name=served_model_name or (),
        api_key=api_key or (),
        api_key_file=api_key_file,
        admin_key=admin_key or (),
        admin_key_file=admin_key_file,
        chat_template=chat_template,
        max_queue=max_queue,
        max_body_bytes=max_body_bytes,
        request_timeout=request_timeout,
        read_timeout=read_timeout,
        write_timeout=write_timeout,
        stall_timeout=stall_timeout,
        drain_timeout=drain_timeout,
    )
    raise typer.Exit(serve(options.settings_of(given), asked))
