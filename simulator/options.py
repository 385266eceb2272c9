"""The options that the commands of the simulator share; vLLM's names where vLLM has them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from policies.routing.catalog import ROUTERS

WORKLOAD, HARDWARE, SCHEDULER, OUTPUT = "Workload", "Hardware and memory", "Scheduler", "Output"
SIGNIFICANCE = "Significance"
CLUSTER = "Cluster"
CAPACITY = "Capacity"

Workload = Annotated[
    str,
    typer.Option(
        "--workload",
        "-w",
        help="A trace (Azure, Mooncake, Vidur, LLMServingSim; or .gz), or a preset: chat, summarization.",
        rich_help_panel=WORKLOAD,
    ),
]
RequestRate = Annotated[
    float | None,
    typer.Option(
        "--request-rate",
        help="Mean requests/s. A trace keeps the shape of its gaps; a preset or lengths without times get "
        "random gaps (see --burstiness). Default: a trace's own times, else all at once.",
        rich_help_panel=WORKLOAD,
    ),
]
Burstiness = Annotated[
    float,
    typer.Option(
        "--burstiness",
        help="Shape of the random gaps: 1 is Poisson, less comes in bursts, more is steadier.",
        rich_help_panel=WORKLOAD,
    ),
]
NumPrompts = Annotated[
    int | None,
    typer.Option("--num-prompts", help="Only so many requests (a preset draws 2048).", rich_help_panel=WORKLOAD),
]
Seed = Annotated[int, typer.Option("--seed", help="Seed of every random draw.", rich_help_panel=WORKLOAD)]
Sort = Annotated[
    bool,
    typer.Option("--sort", help="Sort a trace whose times run backwards.", rich_help_panel=WORKLOAD),
]
Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help="A preset such as llama-3.1-8b, or a Hugging Face config.json.",
        rich_help_panel=HARDWARE,
    ),
]
Device = Annotated[
    str,
    typer.Option(
        "--device",
        "-d",
        help="A preset: a6000, a40, a100-sxm, a100-pcie, l40s, h100, h200, rtx-4090, rtx-pro-6000, cpu; or a "
        "JSON file.",
        rich_help_panel=HARDWARE,
    ),
]
Profile = Annotated[
    Path | None,
    typer.Option(
        "--profile",
        help="A folder written by `python -m profiler`: fit the cost model to it instead of the shipped one. Or a "
        "JSON file of `profiler calibrate` or `profiler fit`.",
        rich_help_panel=HARDWARE,
    ),
]
TensorParallelSize = Annotated[
    int,
    typer.Option("--tensor-parallel-size", "-tp", help="GPUs a stage is split over.", rich_help_panel=HARDWARE),
]
PipelineParallelSize = Annotated[
    int,
    typer.Option("--pipeline-parallel-size", "-pp", help="Stages the layers are split into.", rich_help_panel=HARDWARE),
]
GpuMemoryUtilization = Annotated[
    float,
    typer.Option(
        "--gpu-memory-utilization",
        help="Share of the GPU's memory for weights, activations and KV cache.",
        rich_help_panel=HARDWARE,
    ),
]
BlockSize = Annotated[int, typer.Option("--block-size", help="Tokens a KV block holds.", rich_help_panel=HARDWARE)]
Strict = Annotated[
    bool,
    typer.Option(
        "--strict",
        help="Refuse to guess: an error, and nothing written, at the first batch outside of what was measured on the "
        "device. Without it such iterations are marked, and their share is printed.",
        rich_help_panel=HARDWARE,
    ),
]
MaxModelLen = Annotated[
    int | None,
    typer.Option(
        "--max-model-len",
        help="Longest prompt plus output, in tokens. Default: the longest request of the workload, rounded "
        "up to a multiple of 256.",
        rich_help_panel=HARDWARE,
    ),
]
MaxNumSeqs = Annotated[
    int | None,
    typer.Option("--max-num-seqs", help="Most sequences resident at once.", rich_help_panel=SCHEDULER),
]
MaxNumBatchedTokens = Annotated[
    int | None,
    typer.Option(
        "--max-num-batched-tokens",
        help="Token budget of an iteration, for the policies that run prompts in chunks (vLLM v0 has its own: "
        "vllm:max_num_batched_tokens=...).",
        rich_help_panel=SCHEDULER,
    ),
]
Replicas = Annotated[
    int | None,
    typer.Option(
        "--replicas",
        help="Equal copies of the model, each on GPUs of its own, behind a router. Default: 1.",
        rich_help_panel=CLUSTER,
    ),
]
Router = Annotated[
    str | None,
    typer.Option(
        "--router",
        help=f"Which replica gets a request: {', '.join(ROUTERS)}. least-kv looks at the share of KV blocks in use; "
        "prefix-affinity sends a prompt to where its beginning is cached (by the hash_ids of the trace), unless that "
        "replica is overloaded (prefix-affinity:slack=16). Default: least-requests.",
        rich_help_panel=CLUSTER,
    ),
]
Cluster = Annotated[
    Path | None,
    typer.Option(
        "--cluster",
        help='A JSON file for replicas that differ: "groups", a list of objects with count, role (both, prefill, '
        "decode), device, profile, tensor_parallel_size, pipeline_parallel_size, gpu_memory_utilization, "
        "max_num_seqs, max_num_batched_tokens, weight; what one leaves out is as the other options say. It may also "
        "hold router, link and failures; the options of this panel come before those.",
        rich_help_panel=CLUSTER,
    ),
]
PrefillReplicas = Annotated[
    int | None,
    typer.Option(
        "--prefill-replicas",
        help="Disaggregate: so many replicas run prompts alone, up to the first token; the KV then goes over a link "
        "to one of the --decode-replicas.",
        rich_help_panel=CLUSTER,
    ),
]
DecodeReplicas = Annotated[
    int | None,
    typer.Option(
        "--decode-replicas",
        help="Replicas that decode what --prefill-replicas have begun.",
        rich_help_panel=CLUSTER,
    ),
]
LinkBandwidth = Annotated[
    float | None,
    typer.Option(
        "--link-bandwidth",
        help="GB/s at which a prefill replica sends KV, one transfer at a time. Default: the network adapters of its "
        "GPUs, by the data sheet.",
        rich_help_panel=CLUSTER,
    ),
]
LinkLatency = Annotated[
    float | None,
    typer.Option(
        "--link-latency", help="Milliseconds before a transfer's first byte. Default: 1.", rich_help_panel=CLUSTER
    ),
]
Fail = Annotated[
    list[str] | None,
    typer.Option(
        "--fail",
        metavar="REPLICA@SECONDS+DOWN",
        help="A replica (from 0) fails at this time, and is back so many seconds later: 3@120+30. Its requests are "
        "queued again and compute their KV anew. May be given several times.",
        rich_help_panel=CLUSTER,
    ),
]
Mtbf = Annotated[
    float | None,
    typer.Option(
        "--mtbf",
        help="Let every replica fail at random: mean seconds from a recovery to the next failure. With --mttr.",
        rich_help_panel=CLUSTER,
    ),
]
Mttr = Annotated[
    float | None,
    typer.Option("--mttr", help="Mean seconds from a failure to the recovery.", rich_help_panel=CLUSTER),
]
Goodput = Annotated[
    list[str] | None,
    typer.Option(
        "--goodput",
        help="Latency targets in ms that a request must meet to count, e.g. --goodput 'ttft:500 tpot:50'.",
        rich_help_panel=OUTPUT,
    ),
]
Significance = Annotated[
    bool,
    typer.Option(
        "--significance",
        help="Say which policy is better and how sure that is: pairs of runs with requests drawn anew (of a trace, "
        "stretches of it), each with the cost model as it was fitted and with a draw of what it may be wrong by. "
        "Prints a verdict for each metric and writes significance.json.",
        rich_help_panel=SIGNIFICANCE,
    ),
]
Pairs = Annotated[
    int | None,
    typer.Option(
        "--seeds", help="Pairs of runs, with the seeds after --seed. Default: 10.", rich_help_panel=SIGNIFICANCE
    ),
]
Baseline = Annotated[
    str | None,
    typer.Option(
        "--baseline",
        help="The policy that the others are held against. Default: the one that serves best in the table.",
        rich_help_panel=SIGNIFICANCE,
    ),
]
LeastDifference = Annotated[
    float | None,
    typer.Option(
        "--least-difference",
        help="Percent up to which two values count as equal. Default: 0.5.",
        rich_help_panel=SIGNIFICANCE,
    ),
]
Json = Annotated[
    bool,
    typer.Option("--json", help="Print the metrics as JSON instead of a table.", rich_help_panel=OUTPUT),
]
Perfetto = Annotated[
    bool,
    typer.Option(
        "--perfetto",
        help="Also write a timeline for each policy that ui.perfetto.dev and chrome://tracing open.",
        rich_help_panel=OUTPUT,
    ),
]
Arrivals = Annotated[
    str,
    typer.Option(
        "--arrivals",
        help="poisson: random gaps (see --burstiness). trace: the trace's own gaps, scaled to each rate.",
        rich_help_panel=WORKLOAD,
    ),
]
Slo = Annotated[
    list[str] | None,
    typer.Option(
        "--slo",
        help="What must hold, in ms: tbt:100 is a P99 TBT of at most 100 ms. Words: ttft, tbt (or itl), tpot, e2el, "
        "delay (scheduling delay); a figure may stand before: mean-, p50-, p90-, p95-, p99-, max-; without one P99, of "
        "delay the median. Terms that see no waiting (tbt, tpot) get the papers' delay:2000 with them.",
        rich_help_panel=CAPACITY,
    ),
]
GoodputShare = Annotated[
    float,
    typer.Option(
        "--goodput-share", help="Share of requests that must meet all of --goodput.", rich_help_panel=CAPACITY
    ),
]
NoStability = Annotated[
    bool,
    typer.Option(
        "--no-stability",
        help="Latencies of the run alone decide, as in the papers: rates are not refused because a queue would grow "
        "for ever.",
        rich_help_panel=CAPACITY,
    ),
]
Seeds = Annotated[
    int,
    typer.Option(
        "--seeds",
        help="How many draws of the requests, from --seed on: the interval is over them.",
        rich_help_panel=CAPACITY,
    ),
]
MostTrials = Annotated[
    int,
    typer.Option("--most-trials", help="Most simulations a policy, of all seeds.", rich_help_panel=CAPACITY),
]
Tolerance = Annotated[
    float,
    typer.Option(
        "--tolerance",
        help="How far apart a rate that holds and one that fails may be at the end, as a share.",
        rich_help_panel=CAPACITY,
    ),
]
Guess = Annotated[
    float | None,
    typer.Option(
        "--guess",
        help="Requests/s at which to begin. Default: 0.8 of what is served when all arrive at once.",
        rich_help_panel=CAPACITY,
    ),
]
