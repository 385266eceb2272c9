"""``python -m simulator``: replay a workload under one policy or several, on a fitted cost model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from policies.catalog import POLICIES
from simulator import options
from simulator.paper import options as paper_options
from simulator.search import options as search_options
from traces.command_line import new_app, run
from traces.errors import InputError

app = new_app(
    "Replay request traces under the schedulers of FasterTransformer, Orca, vLLM, SARATHI, Sarathi-Serve.\n\n"
    "The policies are the very objects that the engine runs; their iteration times come from a cost model "
    "fitted to measured ops. Start with [bold]compare[/bold]."
)

POLICY_HELP = (
    f"Policies: {', '.join(POLICIES)}. A policy.json holds the name under the key policy, and settings under theirs."
)
DEFAULT_POLICIES = "faster-transformer,orca,vllm,sarathi-serve"


@app.command("run", no_args_is_help=True)
def run_command(
    workload: options.Workload,
    policy: Annotated[
        str,
        typer.Option(
            "--policy",
            "-p",
            help="A name, with settings if need be (sarathi-serve:max_num_seqs=64), or a policy.json. " + POLICY_HELP,
            rich_help_panel=options.SCHEDULER,
        ),
    ] = "sarathi-serve",
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder to write.", rich_help_panel=options.OUTPUT)
    ] = Path("out/run"),
    model: options.Model = "llama-3.1-8b",
    device: options.Device = "a100-sxm",
    profile: options.Profile = None,
    strict: options.Strict = False,
    request_rate: options.RequestRate = None,
    burstiness: options.Burstiness = 1.0,
    num_prompts: options.NumPrompts = None,
    seed: options.Seed = 0,
    sort: options.Sort = False,
    tensor_parallel_size: options.TensorParallelSize = 1,
    pipeline_parallel_size: options.PipelineParallelSize = 1,
    gpu_memory_utilization: options.GpuMemoryUtilization = 0.9,
    block_size: options.BlockSize = 16,
    max_model_len: options.MaxModelLen = None,
    max_num_seqs: options.MaxNumSeqs = None,
    max_num_batched_tokens: options.MaxNumBatchedTokens = None,
    replicas: options.Replicas = None,
    router: options.Router = None,
    cluster: options.Cluster = None,
    prefill_replicas: options.PrefillReplicas = None,
    decode_replicas: options.DecodeReplicas = None,
    link_bandwidth: options.LinkBandwidth = None,
    link_latency: options.LinkLatency = None,
    fail: options.Fail = None,
    mtbf: options.Mtbf = None,
    mttr: options.Mttr = None,
    goodput: options.Goodput = None,
    perfetto: options.Perfetto = False,
    json: options.Json = False,
) -> None:
    """Replay a workload under ONE policy.

    Prints a table; writes a run record (run.json, requests.parquet, iterations.parquet) and an HTML report.

    Example: python -m simulator run --workload chat --request-rate 3 --model mistral-7b --device a100-sxm

    A cluster: python -m simulator run --workload chat --request-rate 40 --replicas 16 --router least-kv --fail 3@60+30
    """
    given = dict(locals())
    if "," in policy:
        raise InputError(f"{policy} names several", where="--policy", expected="one; compare takes several")
    _compare(policies=given.pop("policy"), **given)


@app.command("compare", no_args_is_help=True)
def compare_command(
    workload: options.Workload,
    policies: Annotated[
        str,
        typer.Option(
            "--policies",
            "-p",
            help="Names separated by commas; one may have settings of its own "
            "(sarathi-serve:max_num_batched_tokens=1024) or be the path of a policy.json. " + POLICY_HELP,
            rich_help_panel=options.SCHEDULER,
        ),
    ] = DEFAULT_POLICIES,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder to write.", rich_help_panel=options.OUTPUT)
    ] = Path("out/compare"),
    model: options.Model = "llama-3.1-8b",
    device: options.Device = "a100-sxm",
    profile: options.Profile = None,
    strict: options.Strict = False,
    request_rate: options.RequestRate = None,
    burstiness: options.Burstiness = 1.0,
    num_prompts: options.NumPrompts = None,
    seed: options.Seed = 0,
    sort: options.Sort = False,
    tensor_parallel_size: options.TensorParallelSize = 1,
    pipeline_parallel_size: options.PipelineParallelSize = 1,
    gpu_memory_utilization: options.GpuMemoryUtilization = 0.9,
    block_size: options.BlockSize = 16,
    max_model_len: options.MaxModelLen = None,
    max_num_seqs: options.MaxNumSeqs = None,
    max_num_batched_tokens: options.MaxNumBatchedTokens = None,
    replicas: options.Replicas = None,
    router: options.Router = None,
    cluster: options.Cluster = None,
    prefill_replicas: options.PrefillReplicas = None,
    decode_replicas: options.DecodeReplicas = None,
    link_bandwidth: options.LinkBandwidth = None,
    link_latency: options.LinkLatency = None,
    fail: options.Fail = None,
    mtbf: options.Mtbf = None,
    mttr: options.Mttr = None,
    goodput: options.Goodput = None,
    significance: options.Significance = False,
    seeds: options.Pairs = None,
    baseline: options.Baseline = None,
    least_difference: options.LeastDifference = None,
    perfetto: options.Perfetto = False,
    json: options.Json = False,
) -> None:
    """Replay a workload under SEVERAL policies, same requests, same memory, same seed.

    Prints a table with the winner of each metric; writes a run record for each policy, comparison.json and
    an HTML report.

    Example: python -m simulator compare --workload trace.csv.gz --model llama-3.1-8b --device a100-sxm
    --policies orca,vllm,sarathi-serve

    How sure is that?: python -m simulator compare --workload chat --request-rate 2.5 --policies vllm,sarathi-serve
    --significance
    """
    _compare(**locals())


@app.command("search", no_args_is_help=True)
def search_command(
    workload: options.Workload,
    output: search_options.Output = Path("out/search"),
    objective: search_options.Objective = None,
    slo: search_options.SloTerms = None,
    goodput: search_options.Goodput = None,
    goodput_share: search_options.GoodputShare = 0.99,
    request_rate: search_options.RequestRate = None,
    price: search_options.Price = None,
    model: options.Model = "llama-3.1-8b",
    devices: search_options.Devices = None,
    profile: search_options.Profile = None,
    tensor_parallel_size: search_options.TensorParallelSize = None,
    pipeline_parallel_size: search_options.PipelineParallelSize = None,
    replicas: search_options.Replicas = None,
    disaggregation: search_options.Disaggregation = None,
    cluster: search_options.Cluster = None,
    router: options.Router = None,
    gpu_memory_utilization: options.GpuMemoryUtilization = 0.9,
    block_size: options.BlockSize = 16,
    max_model_len: options.MaxModelLen = None,
    policies: search_options.Policies = None,
    max_num_batched_tokens: search_options.MaxNumBatchedTokens = None,
    max_num_seqs: search_options.MaxNumSeqs = None,
    space: search_options.SpaceFile = None,
    num_prompts: options.NumPrompts = None,
    arrivals: search_options.Arrivals = "poisson",
    burstiness: options.Burstiness = 1.0,
    length_scale: search_options.LengthScale = 1.0,
    sort: options.Sort = False,
    seed: options.Seed = 0,
    settings: search_options.Settings = 200,
    finalists: search_options.Finalists = 6,
    seeds: search_options.Seeds = 3,
    most_trials: search_options.MostTrials = 15,
    draws: search_options.Draws = 19,
    workers: search_options.Workers = None,
    ray: search_options.Ray = None,
    json: options.Json = False,
) -> None:
    """Find the deployment that serves a workload best within an SLO: policy, settings, GPUs, replicas.

    All candidates are tried on few requests, about a third of them on twice as many, and so on; the finalists on all,
    with several seeds. Writes policy.json (with what is predicted, and how sure that is) and deployment.json for the
    engine, search.json, and an HTML report. It can be stopped at any moment, with SIGKILL too: the same command goes on
    from the journal in the folder, and ends with the same bytes.

    Example: python -m simulator search --workload trace.csv.gz --num-prompts 2000 --slo tbt:100 --devices a100-sxm,h100
    --price a100-sxm=1.79,h100=2.99

    Which cluster serves 20 requests/s for the least? Add --request-rate 20 --replicas 1..8 --disaggregation 1:1,2:2
    """
    given = dict(locals())
    as_json = given.pop("json")
    from simulator.search.request import Request
    from simulator.search.session import run_search

    run_search(Request(**given), as_json=as_json)


@app.command("report", no_args_is_help=True)
def report_command(
    runs: Annotated[
        list[Path],
        typer.Argument(help="Run records (folders with run.json), or folders that compare wrote.", show_default=False),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The HTML file to write.", rich_help_panel=options.OUTPUT)
    ] = Path("out/report.html"),
    goodput: options.Goodput = None,
    json: options.Json = False,
) -> None:
    """Compare run records of one workload that are there already: policies, settings, devices, real and simulated.

    Example: python -m simulator report out/compare/vllm out/compare/sarathi-serve --goodput 'ttft:500 tpot:50'
    """
    from simulator.session import report

    report(runs, output, goodput, as_json=json)


@app.command("replay-run", no_args_is_help=True)
def replay_run_command(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN",
            help="The folder of a published vLLM run: config.json, vllm/meta.json, vllm/requests.jsonl, and if "
            "there are, vllm/timeseries.csv and validation/summary.txt.",
            show_default=False,
        ),
    ],
    profile: Annotated[
        Path | None,
        typer.Option(
            "--profile",
            help="Measurements of the run's GPU: a folder written by `python -m profiler`, a JSON of its `fit` or "
            "`calibrate`, or tables that its `import` takes. Default: the shipped ones.",
            rich_help_panel=options.HARDWARE,
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option("--device", "-d", help="Instead of the one the run names.", rich_help_panel=options.HARDWARE),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="A preset or a Hugging Face config.json, instead of the one the run names.",
            rich_help_panel=options.HARDWARE,
        ),
    ] = None,
    strict: options.Strict = False,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder to write.", rich_help_panel=options.OUTPUT)
    ] = Path("out/replay-run"),
    json: options.Json = False,
) -> None:
    """Simulate what a REAL engine served, with its own settings, and print how far off the simulation is.

    The same requests at the same moments, policy vllm-v1, the cost model of the same GPU. Prints the errors of
    TTFT, TPOT and latency beside those of the simulator that the run was published with, and how far the engine's
    state deviates second by second; writes a run record, replay.json and an HTML report.

    Example: python -m simulator replay-run runs/vllm019/RTX4090/Llama-3.1-8B --profile profiles/RTX4090
    """
    from simulator.replay.session import replay_run

    replay_run(run, output, profile=profile, device=device, model=model, strict=strict, as_json=json)


@app.command("capacity", no_args_is_help=True)
def capacity_command(
    workload: options.Workload,
    policies: Annotated[
        str,
        typer.Option(
            "--policies",
            "-p",
            help="Names separated by commas; one may have settings of its own "
            "(sarathi-serve:max_num_batched_tokens=1024) or be the path of a policy.json. " + POLICY_HELP,
            rich_help_panel=options.SCHEDULER,
        ),
    ] = "sarathi-serve",
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder to write.", rich_help_panel=options.OUTPUT)
    ] = Path("out/capacity"),
    slo: options.Slo = None,
    goodput: options.Goodput = None,
    goodput_share: options.GoodputShare = 0.99,
    no_stability: options.NoStability = False,
    seeds: options.Seeds = 3,
    most_trials: options.MostTrials = 15,
    tolerance: options.Tolerance = 0.025,
    guess: options.Guess = None,
    model: options.Model = "llama-3.1-8b",
    device: options.Device = "a100-sxm",
    profile: options.Profile = None,
    arrivals: options.Arrivals = "poisson",
    burstiness: options.Burstiness = 1.0,
    num_prompts: options.NumPrompts = None,
    seed: options.Seed = 0,
    sort: options.Sort = False,
    tensor_parallel_size: options.TensorParallelSize = 1,
    pipeline_parallel_size: options.PipelineParallelSize = 1,
    gpu_memory_utilization: options.GpuMemoryUtilization = 0.9,
    block_size: options.BlockSize = 16,
    max_model_len: options.MaxModelLen = None,
    max_num_seqs: options.MaxNumSeqs = None,
    max_num_batched_tokens: options.MaxNumBatchedTokens = None,
    replicas: options.Replicas = None,
    router: options.Router = None,
    cluster: options.Cluster = None,
    prefill_replicas: options.PrefillReplicas = None,
    decode_replicas: options.DecodeReplicas = None,
    link_bandwidth: options.LinkBandwidth = None,
    link_latency: options.LinkLatency = None,
    fail: options.Fail = None,
    mtbf: options.Mtbf = None,
    mttr: options.Mttr = None,
    json: options.Json = False,
) -> None:
    """Find the HIGHEST RATE at which an SLO holds, for one policy or several, with an interval over seeds.

    A rate at which the queue grows for ever is not within the capacity, whatever the latencies of a short run: all
    requests arrive at once first, and how fast they are served is the limit. At most 15 simulations a policy. Prints
    a table; writes capacity.json and an HTML report.

    Example: python -m simulator capacity --workload chat --slo tbt:100 --model mistral-7b --device a100-sxm
    --policies orca,vllm,sarathi-serve

    Goodput: python -m simulator capacity -w chat --goodput 'ttft:500 tpot:50' --goodput-share 0.95
    """
    given = dict(locals())
    as_json = given.pop("json")
    from simulator.capacity.session import Request, capacity

    capacity(Request(**given), as_json=as_json)


@app.command("paper")
def paper_command(
    names: paper_options.Names = None,
    everything: paper_options.All = False,
    output: paper_options.Output = Path("out/paper"),
    json: paper_options.Json = False,
) -> None:
    """Make the experiments of SARATHI and Sarathi-Serve again: what they PUBLISHED beside what comes out here.

    Without a name: which experiments there are, what each shows, and about how long it takes. With names, or --all:
    runs them, prints published, ours and the deviation, and why what is missed is missed; writes papers.md, papers.html
    (works offline) and figures/*.svg. Needs no trace, no profile, no GPU and no network.

    The figures are drawn by kaleido (pip install 'charioteer\\[figures]') and a Chrome or Chromium that is there.

    Example: python -m simulator paper table-2

    The page of this project: python -m simulator paper --all --output docs
    """
    from simulator.paper.session import run_papers

    run_papers(names or [], everything, output, as_json=json)


def _compare(*, workload: str, policies: str, output: Path, json: bool, **given: Any) -> None:
    from simulator.session import Request, compare

    compare(Request(workload=workload, policies=policies, output=output, **given), as_json=json)


def main() -> None:
    """Start the command line."""
    run(app, "python -m simulator")


if __name__ == "__main__":
    main()
