"""The options of ``search``: where other commands take a value it takes lists of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from policies.catalog import POLICIES
from simulator.options import HARDWARE, OUTPUT, SCHEDULER, WORKLOAD
from simulator.search.usual import DEVICES, INTEGERS, OBJECTIVES, USUAL_POLICIES

GOAL, EFFORT = "Goal", "Effort"
LISTS = "Lists: 256,512 or ranges, 64..1024*2 (doubling), 1..8 (by one)."


def _integers(name: str, text: str, panel: str, *short: str) -> object:
    usual = ",".join(map(str, INTEGERS[name]))
    flag = f"--{name.replace('_', '-')}"
    return typer.Option(flag, *short, metavar="LIST", help=f"{text} {LISTS} Default: {usual}.", rich_help_panel=panel)


Arrivals = Annotated[
    str,
    typer.Option(
        "--arrivals",
        metavar="poisson|trace",
        help="Random gaps, or a trace's own, scaled to each rate.",
        rich_help_panel=WORKLOAD,
    ),
]
LengthScale = Annotated[
    float,
    typer.Option("--length-scale", help="Factor on all lengths, for short contexts.", rich_help_panel=WORKLOAD),
]
RequestRate = Annotated[
    float | None,
    typer.Option(
        "--request-rate",
        help="Requests/s that have to be served: the capacity must reach it. Default: each candidate is judged at its "
        "own capacity.",
        rich_help_panel=GOAL,
    ),
]
Objective = Annotated[
    str | None,
    typer.Option(
        "--objective",
        metavar="|".join(OBJECTIVES),
        help="cost: least USD for a million output tokens. capacity: most requests/s. goodput-per-gpu: most requests/s "
        "within the SLO for each GPU. Default: cost where --price is given, else goodput-per-gpu.",
        rich_help_panel=GOAL,
    ),
]
Price = Annotated[
    list[str] | None,
    typer.Option(
        "--price",
        metavar="DEVICE=USD",
        help="What an hour of a device costs you: a100-sxm=1.79,h100=2.99, or a JSON file of such pairs. No device has "
        "a price by default.",
        rich_help_panel=GOAL,
    ),
]
SloTerms = Annotated[
    list[str] | None,
    typer.Option(
        "--slo",
        help="Limits in ms, all of which must hold: tbt:100 (the P99), p90-ttft:500, delay:2000 (the median). Default, "
        "without --goodput: tbt:100, and with it the papers' median scheduling delay of 2 s.",
        rich_help_panel=GOAL,
    ),
]
Goodput = Annotated[
    list[str] | None,
    typer.Option(
        "--goodput",
        help="Targets in ms that a share of the requests must meet, each of them: 'ttft:500 tpot:50'.",
        rich_help_panel=GOAL,
    ),
]
GoodputShare = Annotated[float, typer.Option("--goodput-share", help="That share.", rich_help_panel=GOAL)]
Profile = Annotated[
    list[str] | None,
    typer.Option(
        "--profile",
        metavar="[DEVICE=]PATH",
        help="A folder written by `python -m profiler`, instead of the shipped measurements of a device.",
        rich_help_panel=HARDWARE,
    ),
]
SpaceFile = Annotated[
    Path | None,
    typer.Option(
        "--space",
        help='A JSON file with any of the keys policies (names, or objects such as {"policy": "vllm-v1", '
        '"enable_prefix_caching": [true, false]}), max_num_batched_tokens, max_num_seqs, devices, '
        "tensor_parallel_size, pipeline_parallel_size, replicas, disaggregation, clusters, prices. Options come first.",
        rich_help_panel=SCHEDULER,
    ),
]
Policies = Annotated[
    str | None,
    typer.Option(
        "--policies",
        "-p",
        metavar="LIST",
        help=f"Of {', '.join(POLICIES)}; one may have settings of its own (vllm-v1:enable_prefix_caching=false). "
        f"Default: {','.join(USUAL_POLICIES)}.",
        rich_help_panel=SCHEDULER,
    ),
]
MaxNumBatchedTokens = Annotated[
    str | None,
    _integers("max_num_batched_tokens", "Token budgets, for policies that run prompts in chunks.", SCHEDULER),
]
MaxNumSeqs = Annotated[str | None, _integers("max_num_seqs", "Most sequences resident at once.", SCHEDULER)]
Devices = Annotated[
    str | None,
    typer.Option(
        "--devices",
        "-d",
        metavar="LIST",
        help="Presets (see `run --help`), or JSON files. Default: " + ",".join(DEVICES) + ".",
        rich_help_panel=HARDWARE,
    ),
]
TensorParallelSize = Annotated[
    str | None, _integers("tensor_parallel_size", "GPUs a stage is split over.", HARDWARE, "-tp")
]
PipelineParallelSize = Annotated[
    str | None, _integers("pipeline_parallel_size", "Stages the layers are split into.", HARDWARE, "-pp")
]
Replicas = Annotated[str | None, _integers("replicas", "Equal copies of the model behind a router.", HARDWARE)]
Disaggregation = Annotated[
    str | None,
    typer.Option(
        "--disaggregation",
        metavar="LIST",
        help="Prefill and decode replicas: 1:1,2:1,1:2, beside replicas that do both. Default: none.",
        rich_help_panel=HARDWARE,
    ),
]
Cluster = Annotated[
    list[Path] | None,
    typer.Option(
        "--cluster",
        help="A JSON file of replicas that differ, as `run` takes it: one more candidate for each policy. May be given "
        "several times.",
        rich_help_panel=HARDWARE,
    ),
]
Settings = Annotated[
    int,
    typer.Option(
        "--settings",
        help="Most settings to try; a larger space is drawn from, by the seed.",
        rich_help_panel=EFFORT,
    ),
]
Finalists = Annotated[
    int,
    typer.Option("--finalists", help="Candidates that are tried in full (at least 3).", rich_help_panel=EFFORT),
]
Seeds = Annotated[int, typer.Option("--seeds", help="Draws of the requests for each finalist.", rich_help_panel=EFFORT)]
MostTrials = Annotated[
    int, typer.Option("--most-trials", help="Most simulations for a finalist's capacity.", rich_help_panel=EFFORT)
]
Draws = Annotated[
    int,
    typer.Option(
        "--draws",
        help="Draws of what the cost model may be wrong by, for the intervals; 19 are the fewest that hold 90 %.",
        rich_help_panel=EFFORT,
    ),
]
Workers = Annotated[
    int | None,
    typer.Option("--workers", help="Processes, or Ray tasks at once. Default: one a core.", rich_help_panel=EFFORT),
]
Ray = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="ADDRESS",
        help="Run the simulations on a Ray cluster: auto, local, HOST:PORT or ray://HOST:PORT. The program and "
        "the files it needs are sent there; its libraries must be installed. Needs the extra \\[ray].",
        rich_help_panel=EFFORT,
    ),
]
Output = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        help="Folder to write; where it holds the journal of the same search, that goes on from there.",
        rich_help_panel=OUTPUT,
    ),
]
