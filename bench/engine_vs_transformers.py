"""Output tokens/s of this engine and of transformers' own continuous batching: ``bench/engine_vs_transformers.py``.

The same model with the same weights and the very same requests go through ``model.generate_batch`` and through this
engine, in one process, one after the other in turn, each time with new random prompts; the figures are medians.
transformers' side first tries several of its settings at each batch size and is measured with its fastest, and keeps
its manager and cache from one call to the next. Greedy tokens must be the same on both sides (in float32; with 16 bits
the share that is the same is printed). Uses CUDA where there is one.

Example: python bench/engine_vs_transformers.py --batch-sizes 1,8,32
"""

from __future__ import annotations

import logging
import os
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from engine.shortage import first_line  # noqa: E402
from traces.command_line import new_app, run  # noqa: E402
from traces.errors import InputError  # noqa: E402

os.environ["OMP_NUM_THREADS"] = "1"  # of every thread: transformers computes in one of its own
app = new_app("Output tokens/s of this engine beside transformers' generate_batch, in one run.")
Prompts = list[list[int]]
Timed = tuple[float, list[list[int]]]


@dataclass(frozen=True, kw_only=True)
class Load:
    """Requests of one shape, all there at once."""

    batch_size: int
    input_len: int
    output_len: int

    def prompts(self, vocab: int, seed: int) -> Prompts:
        """Return random prompts."""
        import numpy as np

        drawn = np.random.default_rng([seed, self.batch_size]).integers(vocab, size=(self.batch_size, self.input_len))
        return [[int(token) for token in prompt] for prompt in drawn]

    @property
    def output_tokens(self) -> int:
        """Tokens that come out."""
        return self.batch_size * self.output_len


@dataclass(frozen=True, kw_only=True)
class Theirs:
    """Settings of transformers' continuous batching: attention, tokens of a KV page, most tokens of a batch."""

    attention: str
    page_size: int
    max_batch_tokens: int

    def __str__(self) -> str:
        return f"{self.attention}, pages of {self.page_size}, {self.max_batch_tokens} tokens a batch"


CPU_CHOICES = tuple(
    Theirs(attention=attention, page_size=32, max_batch_tokens=tokens)
    for attention, tokens in (("sdpa", 512), ("eager", 512), ("sdpa", 256))
)
CUDA_CHOICES = tuple(
    Theirs(attention=attention, page_size=256, max_batch_tokens=tokens)
    for attention in ("flash_attention_2", "sdpa")
    for tokens in (2048, 8192)
)


class Transformers:
    """A stock model, with the weights of the engine's, behind ``generate_batch``."""

    def __init__(self, model: Any, load: Load, choice: Theirs) -> None:
        import transformers
        from transformers.generation.configuration_utils import ContinuousBatchingConfig

        greedy: Any = transformers.GenerationConfig
        model.set_attn_implementation(choice.attention)
        self._model = model
        self._keeps_manager = hasattr(model, "destroy_cached_continuous_batching_manager")
        self._tokens = load.output_len
        self._greedy = greedy(max_new_tokens=load.output_len, do_sample=False, eos_token_id=-1, pad_token_id=0)
        pages = load.batch_size * -(-(load.input_len + load.output_len) // choice.page_size)
        self._settings = ContinuousBatchingConfig(
            page_size=choice.page_size,
            num_blocks=2 * pages + 8,
            max_batch_tokens=max(choice.max_batch_tokens, load.batch_size),
            allow_block_sharing=False,
        )

    def serve(self, prompts: Prompts) -> Timed:
        """Return the seconds that ``prompts`` took and their output tokens."""
        start = time.perf_counter()
        outputs = self._model.generate_batch(
            prompts,
            generation_config=self._greedy,
            continuous_batching_config=self._settings,
            persistent_manager=self._keeps_manager,
        )
        seconds = time.perf_counter() - start
        tokens = [list(output.generated_tokens) for output in outputs.values()]
        if [len(each) for each in tokens] != [self._tokens] * len(prompts):
            raise RuntimeError("transformers did not serve all requests")
        return seconds, tokens

    def close(self) -> None:
        """Give its KV cache back."""
        if self._keeps_manager:
            self._model.destroy_cached_continuous_batching_manager()


def stock_model(name: str, load_format: str, dtype: Any, device: str) -> Any:
    """Return the model as transformers has it, with the very weights that the engine loads."""
    import torch
    import transformers

    from profiler.model import model_path
    from traces.files import read_json

    causal_lm: Any = transformers.AutoModelForCausalLM
    path = model_path(name)
    if load_format == "safetensors":
        made = causal_lm.from_pretrained(str(path.parent), dtype=dtype, local_files_only=True).to(device)
    else:
        config = transformers.AutoConfig.for_model(**read_json(path))
        with torch.random.fork_rng(), torch.device(device):
            torch.manual_seed(0)
            made = causal_lm.from_config(config, dtype=dtype)
    return made.eval()


def serve_ours(engine: Any, prompts: Prompts, output_len: int) -> Timed:
    """Return the seconds that ``prompts`` took in the engine and their output tokens."""
    from engine.sampling import SamplingParams

    params = SamplingParams(temperature=0, max_tokens=output_len, ignore_eos=True)
    start = time.perf_counter()
    outcomes = engine.generate(prompts, params)
    return time.perf_counter() - start, [outcome.output_token_ids for outcome in outcomes]


def fastest(model: Any, load: Load, choices: Sequence[Theirs], vocab: int) -> tuple[Theirs, Transformers]:
    """Return transformers' side with the settings that are fastest for ``load`` after a first call.

    A choice that this machine cannot run, such as an attention that is not installed, is passed over.
    """
    found: list[tuple[float, Theirs]] = []
    for choice in choices:
        try:
            found.append((_trial(model, load, choice, vocab), choice))
        except (ImportError, ValueError, RuntimeError) as error:
            print(f"  (transformers cannot run {choice}: {first_line(error)[:80]})", flush=True)
    if not found:
        raise InputError("transformers can run none of its settings here", where="generate_batch")
    best = min(found, key=lambda pair: pair[0])[1]
    return best, Transformers(model, load, best)


def _trial(model: Any, load: Load, choice: Theirs, vocab: int) -> float:
    """Return the seconds of a second call: the first one compiles, captures and allocates."""
    theirs = Transformers(model, load, choice)
    try:
        theirs.serve(load.prompts(vocab, 0))
        return theirs.serve(load.prompts(vocab, 1))[0]
    finally:
        theirs.close()


def compare(engine: Any, model: Any, load: Load, *, choices: Sequence[Theirs], rounds: int) -> float:
    """Measure both sides in turn; print one row; return the share of equal tokens."""
    vocab = engine.runner.vocab
    choice, theirs = fastest(model, load, choices, vocab)
    ours_s, theirs_s, same = [], [], 0
    for round_ in range(rounds + 1):
        prompts = load.prompts(vocab, 1000 + round_)
        own_s, own = serve_ours(engine, prompts, load.output_len)
        their_s, other = theirs.serve(prompts)
        if round_:
            ours_s.append(own_s)
            theirs_s.append(their_s)
            pairs = zip(own, other, strict=True)
            same += sum(a == b for left, right in pairs for a, b in zip(left, right, strict=True))
    theirs.close()
    rates = [load.output_tokens / statistics.median(seconds) for seconds in (ours_s, theirs_s)]
    share = same / (rounds * load.output_tokens)
    ratio = rates[0] / rates[1]
    cells = f"{load.batch_size:>10}{rates[0]:>12,.1f}{rates[1]:>14,.1f}{ratio:>8.2f}{share:>14.1%}"
    print(f"{cells}   {choice}", flush=True)
    return share


@app.command()
def main(
    model: Annotated[str, typer.Option("--model", "-m", help="A folder, a config.json or a preset.")] = "llama-60m",
    load_format: Annotated[str, typer.Option(help="safetensors, or dummy for random weights.")] = "dummy",
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16. Default: the config's.")] = None,
    device: Annotated[str | None, typer.Option(help="Default: cuda where there is one, else cpu.")] = None,
    policy: Annotated[str, typer.Option(help="Of the engine.")] = "vllm-v1",
    batch_sizes: Annotated[str, typer.Option(help="Requests at once, separated by commas.")] = "1,8,32",
    input_len: Annotated[int, typer.Option(help="Prompt tokens of each.")] = 128,
    output_len: Annotated[int, typer.Option(help="Output tokens of each.")] = 32,
    rounds: Annotated[int, typer.Option(min=1, help="How often each side is measured.")] = 3,
    quick: Annotated[bool, typer.Option("--quick", help="One round, one choice of settings, short requests.")] = False,
) -> None:
    """Print output tokens/s side by side; status 1 where float32 tokens differ."""
    sizes = _sizes(batch_sizes)
    import torch
    import transformers

    from engine.hardware import device_name
    from engine.session import EngineSettings, build_engine, policy_choice

    notices: Any = transformers.utils.logging
    notices.set_verbosity_error()
    logging.getLogger("ContinuousBatchingLogger").setLevel(logging.CRITICAL)
    where = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if quick:
        input_len, output_len, rounds = min(input_len, 32), min(output_len, 8), 1
    loads = [Load(batch_size=size, input_len=input_len, output_len=output_len) for size in sizes]
    choices = CPU_CHOICES if where == "cpu" else CUDA_CHOICES
    settings = EngineSettings(
        model=model,
        load_format=load_format,
        dtype=dtype,
        device=where,
        policy=policy,
        max_num_seqs=max(load.batch_size for load in loads),
    )
    engine = build_engine(settings, policy_choice(settings), longest=input_len + output_len)
    engine.runner.warm_up()
    number_type = engine.runner.cache.layout.dtype
    stock = stock_model(model, load_format, number_type, where)
    name = device_name(engine.runner.device)
    print(
        f"{model}, {str(number_type).removeprefix('torch.')}, {input_len} prompt + {output_len} output tokens, {name}"
    )
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, medians of {rounds}; output tokens/s")
    print(f"{'batch':>10}{'engine':>12}{'transformers':>14}{'ratio':>8}{'same tokens':>14}   transformers' fastest")
    shares = [compare(engine, stock, load, choices=choices[:1] if quick else choices, rounds=rounds) for load in loads]
    if number_type == torch.float32 and min(shares) < 1:
        print("error: the output tokens differ", file=sys.stderr)
        raise typer.Exit(1)


def _sizes(text: str) -> list[int]:
    try:
        sizes = [int(part) for part in text.split(",")]
    except ValueError:
        sizes = []
    if not sizes or min(sizes) < 1:
        raise InputError(repr(text), where="--batch-sizes", expected="integers >= 1, such as 1,8,32")
    return sizes


if __name__ == "__main__":
    run(app, "bench/engine_vs_transformers.py")
