"""``python -m traces``: look at workloads, make them, and turn one format into another."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from traces.command_line import new_app, run
from traces.errors import InputError

if TYPE_CHECKING:
    from traces.workload import Workload

app = new_app(
    "Look at workloads, make them, and turn one format into another.\n\n"
    "A workload is a list of requests: when each arrives, how many prompt tokens it brings, and how many "
    "output tokens it asks for. Files are CSV or JSONL, plain or gzip, and are recognised by their columns: "
    "Azure LLM inference traces, Mooncake and vLLM's timed_trace, Qwen-Bailian, Vidur, LLMServingSim, and "
    "the CSV that [bold]generate[/] and [bold]convert[/] write.\n\n"
    "Example: [bold]python -m traces generate --lengths chat --request-rate 2 --output chat.csv[/]"
)

Sort = Annotated[bool, typer.Option("--sort", help="Put the rows in order of arrival instead of refusing.")]
ZeroOutput = Annotated[
    bool, typer.Option("--zero-output-as-one", help="Read an output length of 0 as 1 instead of refusing.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object, for machines.")]
Target = Annotated[
    str | None,
    typer.Option(
        "--to",
        metavar="FORMAT",
        help="charioteer (CSV), mooncake (JSONL, as vLLM's timed_trace) or azure (CSV); "
        "by default mooncake for a name in .jsonl, else charioteer.",
    ),
]
ARRIVALS = "When requests arrive"
LENGTHS = "How long requests are"


def _tokens(help_text: str) -> Any:
    return typer.Option(metavar="TOKENS", help=help_text, rich_help_panel=LENGTHS)


@app.command()
def info(
    file: Annotated[Path, typer.Argument(help="A workload file of any known format, plain or gzip.")],
    sort: Sort = False,
    zero_output_as_one: ZeroOutput = False,
    as_json: AsJson = False,
) -> None:
    """Describe a workload: requests, span, rate, burstiness, lengths, and a sketch of its arrivals.

    Example: [bold]python -m traces info AzureLLMInferenceTrace_conv.csv.gz[/]
    """
    from traces.readers import read_head, read_workload
    from traces.stream import TraceFile

    trace = TraceFile(file)
    with _status(f"reading {file}"):
        title = read_head(trace).format.title
        workload = read_workload(trace, sort=sort, zero_output_as_one=zero_output_as_one)
    _report(workload, title, {"file": str(file), "format": title}, as_json)


@app.command()
def generate(
    output: Annotated[Path, typer.Option(help="The file to write; compressed if its name ends in .gz.")],
    num_prompts: Annotated[int | None, typer.Option(help="How many requests to draw (2048).")] = None,
    seed: Annotated[int | None, typer.Option(help="Decides every draw (0).")] = None,
    request_rate: Annotated[
        float | None,
        typer.Option(help="Mean requests per second; inf: all at once.", rich_help_panel=ARRIVALS),
    ] = None,
    burstiness: Annotated[
        float | None,
        typer.Option(help="Shape of gamma gaps: 1 is a Poisson process, less is burstier.", rich_help_panel=ARRIVALS),
    ] = None,
    arrivals: Annotated[
        str | None,
        typer.Option(
            metavar="KIND",
            help="poisson, gamma, constant, all-at-once or trace; by default the one of the options given.",
            rich_help_panel=ARRIVALS,
        ),
    ] = None,
    arrivals_from: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="trace: the file whose gaps to take, scaled to --request-rate if given.",
            rich_help_panel=ARRIVALS,
        ),
    ] = None,
    lengths: Annotated[
        str | None,
        typer.Option(
            metavar="KIND",
            help="chat or summarization (Sarathi-Serve's datasets), fixed, uniform, zipf, lognormal or "
            "trace; by default the one of the options given, else chat.",
            rich_help_panel=LENGTHS,
        ),
    ] = None,
    input_len: Annotated[int | None, _tokens("fixed: every prompt's length.")] = None,
    output_len: Annotated[int | None, _tokens("fixed: every output's length.")] = None,
    input_len_min: Annotated[int | None, _tokens("uniform: the shortest prompt.")] = None,
    input_len_max: Annotated[int | None, _tokens("uniform: the longest prompt.")] = None,
    output_len_min: Annotated[int | None, _tokens("uniform: the shortest output.")] = None,
    output_len_max: Annotated[int | None, _tokens("uniform: the longest output.")] = None,
    zipf_theta: Annotated[float | None, typer.Option(help="zipf: the exponent (0.4).", rich_help_panel=LENGTHS)] = None,
    prompt_to_output: Annotated[
        float | None, typer.Option(help="zipf: prompt over output tokens (10).", rich_help_panel=LENGTHS)
    ] = None,
    total_len_min: Annotated[int | None, _tokens("zipf: the shortest total (1024).")] = None,
    total_len_max: Annotated[
        int | None, _tokens("zipf: the longest total (4096); lognormal: draw longer ones again.")
    ] = None,
    input_len_p50: Annotated[float | None, _tokens("lognormal: the median prompt.")] = None,
    input_len_p90: Annotated[float | None, _tokens("lognormal: the 90th percentile of prompts.")] = None,
    output_len_p50: Annotated[float | None, _tokens("lognormal: the median output.")] = None,
    output_len_p90: Annotated[float | None, _tokens("lognormal: the 90th percentile of outputs.")] = None,
    lengths_from: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="trace: the file to draw requests from, prompt and output together.",
            rich_help_panel=LENGTHS,
        ),
    ] = None,
    settings: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Take all of this from a JSON file, as --json prints it, instead."),
    ] = None,
    to: Target = None,
    as_json: AsJson = False,
) -> None:
    """Draw a workload: arrivals and lengths from a distribution or from a trace, all by one seed.

    The same command writes the same bytes. Without a rate the file holds lengths only.

    Examples:

    [bold]python -m traces generate --lengths chat --request-rate 2 --output chat.csv[/]

    [bold]python -m traces generate --lengths zipf --request-rate inf --num-prompts 10000 --output zipf.csv[/]

    [bold]python -m traces generate --input-len 1024 --output-len 128 --request-rate 4
    --burstiness 0.25 --output bursty.jsonl[/]

    [bold]python -m traces generate --lengths-from sharegpt_8k.csv.gz
    --arrivals-from AzureLLMInferenceTrace_conv.csv.gz --request-rate 3 --output mixed.csv[/]
    """
    from traces.choices import chosen_settings
    from traces.files import read_json
    from traces.generator import GeneratorSettings
    from traces.generator import generate as draw

    whole = {"--num-prompts": num_prompts, "--seed": seed, "--lengths": lengths, "--arrivals": arrivals}
    when = {"--request-rate": request_rate, "--burstiness": burstiness, "--arrivals-from": arrivals_from}
    what = {
        "--input-len": input_len,
        "--output-len": output_len,
        "--input-len-min": input_len_min,
        "--input-len-max": input_len_max,
        "--output-len-min": output_len_min,
        "--output-len-max": output_len_max,
        "--zipf-theta": zipf_theta,
        "--prompt-to-output": prompt_to_output,
        "--total-len-min": total_len_min,
        "--total-len-max": total_len_max,
        "--input-len-p50": input_len_p50,
        "--input-len-p90": input_len_p90,
        "--output-len-p50": output_len_p50,
        "--output-len-p90": output_len_p90,
        "--lengths-from": lengths_from,
    }
    if settings is None:
        chosen = chosen_settings(_given(whole), when=_given(when), what=_given(what))
    elif beside := list(_given(whole | when | what)):
        raise InputError(f"{beside[0]} beside --settings", expected="one of the two")
    else:
        chosen = GeneratorSettings.from_document(read_json(settings), where=settings)
    with _status("drawing"):
        workload = draw(chosen)
    _write(output, workload, to)
    _report(workload, f"written to {output}", {"file": str(output), "settings": chosen.document()}, as_json)


@app.command()
def convert(
    file: Annotated[Path, typer.Argument(help="A workload file of any known format, plain or gzip.")],
    output: Annotated[Path, typer.Argument(help="The file to write; compressed if its name ends in .gz.")],
    to: Target = None,
    window: Annotated[
        str | None,
        typer.Option(metavar="START:END", help="Keep the arrivals in these seconds; either may be left out."),
    ] = None,
    head: Annotated[int | None, typer.Option(help="Keep the first so many requests.")] = None,
    scale: Annotated[float | None, typer.Option(help="Multiply the rate: 2 halves every gap.")] = None,
    sort: Sort = False,
    zero_output_as_one: ZeroOutput = False,
    as_json: AsJson = False,
) -> None:
    """Turn a workload into another format, or cut and scale it: window, then head, then scale.

    Examples:

    [bold]python -m traces convert AzureLLMInferenceTrace_conv.csv rush.csv --window 600:1200 --scale 1.5[/]

    [bold]python -m traces convert conversation_trace.jsonl first.jsonl.gz --head 1000[/]
    """
    from traces.readers import read_workload
    from traces.source import parse_window, part

    if output.resolve() == file.resolve():
        raise InputError("would replace the workload it is made from", where=output, expected="another name")
    with _status(f"reading {file}"):
        whole = read_workload(file, sort=sort, zero_output_as_one=zero_output_as_one)
    kept = None if window is None else parse_window(window)
    workload = part(whole, window=kept, num_prompts=head, scale=scale)
    _write(output, workload, to)
    _report(workload, f"written to {output}", {"file": str(output)}, as_json)


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _write(output: Path, workload: Workload, to: str | None) -> None:
    from traces.writers import keeps_prefixes, natural_format, write_workload

    kind = to or natural_format(output)
    write_workload(output, workload, to=kind)
    if workload.hash_ids is not None and not keeps_prefixes(kind):
        print(f"note: {kind} has no place for the prefix hashes; --to mooncake keeps them", file=sys.stderr)


def _report(workload: Workload, title: str, more: dict[str, Any], as_json: bool) -> None:
    from traces.description import describe

    facts = describe(workload)
    if as_json:
        print(json.dumps({**more, **facts}, indent=2, allow_nan=False))
        return
    from traces.terminal import print_description

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    print_description(workload, facts, title)


@contextmanager
def _status(text: str) -> Iterator[None]:
    from rich.console import Console

    with Console(stderr=True).status(f"{text} ..."):
        yield


if __name__ == "__main__":
    run(app, "python -m traces")
