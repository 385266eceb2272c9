"""The command ``serve`` and its options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine import options
from policies.routing.catalog import ROUTERS
from policies.routing.least_loaded import LeastRequests
from traces.errors import InputError

if TYPE_CHECKING:
    from engine.server.serving import ServeSettings
    from engine.session import EngineSettings

UsageError: type[Exception] = typer.BadParameter.__bases__[0]
"""Click's, or that of the copy of it which typer may hold."""
HTTP, KEYS, LIMITS, CLUSTER = "HTTP", "Keys", "Limits", "Cluster"
LIBRARIES = ("fastapi", "uvicorn", "prometheus_client")
"""What serving needs beyond the engine."""


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
            "nothing new is taken on, until there is one. Replicas are not watched so.",
            rich_help_panel=LIMITS,
        ),
    ] = 60.0,
    drain_timeout: Annotated[
        float,
        typer.Option("--drain-timeout", help="Seconds for what runs to finish after SIGTERM.", rich_help_panel=LIMITS),
    ] = 60.0,
    record: Annotated[
        Path | None,
        typer.Option(
            "--record",
            help="A folder for run records 0001, 0002, ...: lengths and times of what is served, never what was said. "
            "A new one begins with every other policy; several replicas have a folder each, replica-0 and so on.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = None,
    record_minutes: Annotated[
        float,
        typer.Option(
            "--record-minutes",
            help="A new record begins after so long, at the next request; a process that is killed loses the last.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = 60.0,
    replicas: Annotated[
        int | None,
        typer.Option("--replicas", min=1, help="Engines, each on a GPU or CPUs of its own.", rich_help_panel=CLUSTER),
    ] = None,
    router: Annotated[
        str | None,
        typer.Option(
            "--router",
            help=f"Which replica gets a request: {', '.join(ROUTERS)}; with settings as prefix-affinity:overload=2. "
            f"Default: {LeastRequests.name}.",
            rich_help_panel=CLUSTER,
        ),
    ] = None,
    cluster: Annotated[
        Path | None,
        typer.Option(
            "--cluster",
            help="A cluster.json of simulator search: its replicas and its router.",
            rich_help_panel=CLUSTER,
        ),
    ] = None,
    ray_address: Annotated[
        str | None,
        typer.Option(
            "--ray-address",
            help="The Ray cluster to run replicas on, HOST:PORT or auto. Default: one that begins and ends with the "
            "server, on this machine alone.",
            rich_help_panel=CLUSTER,
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
) -> None:
    """Serve OpenAI's API: completions and chat completions, streamed or whole.

    Clients of OpenAI and of vLLM work unchanged. Keys guard /v1 alone; /health,
    /tokenize and the like are free, and /admin has keys of its own.

    A model without a tokenizer takes text as bytes: token 65 is A, and tokens from
    256 on, which no text has, read as <256>.

    The first SIGTERM (or Ctrl-C) finishes what runs, while /health answers 503 and
    nothing new is taken on; a second drops it. Where the engine breaks, requests
    get 500 or 503, and the server ends with status 1 for its supervisor to see.

    --record keeps what is served as run records, each with its workload.jsonl, for
    simulator run --workload and profiler calibrate --run. Where the disk is full it
    says so once, and serving goes on.

    With --replicas (and charioteer[ray]) a router of the simulator's chooses among
    several engines, which Ray places and starts again. A request whose replica
    fails goes to another one, unless some of its output has been sent.

    Example: python -m engine serve --model llama-60m --load-format dummy --policy sarathi-serve

    curl http://127.0.0.1:8000/v1/completions -H 'Content-Type: application/json' \
    -d '{"prompt": "Once upon a time", "max_tokens": 8}'
    """
    given = dict(locals())
    check_installed()
    options.quiet()
    from engine.server.serving import serve

    raise typer.Exit(serve(*_asked(given)))


def check_installed(libraries: Sequence[str] = LIBRARIES) -> None:
    """Refuse to serve where what speaks HTTP is not there.

    Raises
    ------
    InputError
        If a library is missing.
    """
    missing = [name for name in libraries if find_spec(name) is None]
    if missing:
        raise InputError(f"{', '.join(missing)} not installed", expected="pip install 'charioteer[serve]'")


def _asked(given: Mapping[str, Any]) -> tuple[EngineSettings, ServeSettings]:
    """Return what the options ask of the engine, and of the server."""
    from engine.server.scale_out import scale_out
    from engine.server.serving import ServeSettings

    settings = options.settings_of(dict(given))
    scale = scale_out(settings, **{name: given[name] for name in ("replicas", "router", "cluster", "ray_address")})
    own = {field.name: given[field.name] for field in fields(ServeSettings) if given.get(field.name) is not None}
    return settings, ServeSettings(**own, scale=scale)


def parsed(arguments: Mapping[str, Any]) -> tuple[EngineSettings, ServeSettings]:
    """Return what options ask for that are given by name, as ``serve run`` has them; lists are several of one option.

    Raises
    ------
    InputError
        If one is unknown, missing or wrong.
    """
    words = [word for name, value in arguments.items() for word in _words(name, value)]
    app = typer.Typer()
    app.command()(serve_command)
    try:
        with typer.main.get_command(app).make_context("serve", words) as context:
            return _asked(context.params)
    except UsageError as error:
        what = str(getattr(error, "message", error))
        raise InputError(what, where="arguments", expected="options of python -m engine serve") from error


def _words(name: str, value: Any) -> list[str]:
    """Return an option as it is written on a command line."""
    option = f"--{name.replace('_', '-')}"
    if isinstance(value, list | tuple):
        return [word for each in value for word in _words(name, each)]
    if str(value).lower() in ("true", "false"):
        return [option] if str(value).lower() == "true" else []
    return [option, str(value)]
