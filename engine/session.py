"""From what a person asks for to an engine that is ready, checked as far as it can be before weights are read."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import torch

from engine.attention import attention_backend
from engine.costs import costs_known, known_costs
from engine.engine import Engine
from engine.graphs import GraphSizes, OnProgress
from engine.kv_cache import KVLayout
from engine.kv_layout import kv_layout
from engine.loading import check_device, load_model
from engine.runner import Runner
from engine.text import Tokenizer
from policies.blocks import KVMemory
from policies.catalog import POLICIES, PolicyChoice, parse_choice, read_policy
from traces.errors import InputError

CPU_KV_BYTES = 2**30
"""What the KV cache takes of a CPU's memory unless told otherwise."""
GPU_SHARE = 0.9
SCRATCH_BLOCKS = 1
"""What the KV cache holds beside the policy's blocks."""
BUDGETS = ("max_num_batched_tokens", "chunk_size")
"""Settings that say how many tokens a policy fills a batch with."""
LENGTH_STEP = 256
"""A default max_model_len is a multiple of this, in tokens."""


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """What a person asked of the engine; each field is the option of that name."""

    model: str
    policy: str = "vllm-v1"
    load_format: str = "safetensors"
    dtype: str | None = None
    device: str = "cpu"
    attention_backend: str = "auto"
    enforce_eager: bool = False
    torch_compile: bool = False
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    max_model_len: int | None = None
    block_size: int = 16
    num_gpu_blocks_override: int | None = None
    gpu_memory_utilization: float | None = None
    profile: str | None = None
    threads: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("max_model_len", "block_size", "num_gpu_blocks_override", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"is {value}", where=option(name), expected="an integer >= 1")
        if not 0 <= self.seed < 2**63:
            raise InputError(f"is {self.seed}", where="--seed", expected="an integer in [0, 2^63)")
        most = os.cpu_count() or 1
        if self.threads > most:
            raise InputError(f"is {self.threads}", where="--threads", expected=f"at most {most}, the processors here")
        share = self.gpu_memory_utilization
        if share is not None and not 0 < share <= 1:
            raise InputError(f"is {share}", where="--gpu-memory-utilization", expected="a number in (0, 1]")
        if share is not None and self.device == "cpu":
            what = "there is no GPU memory on a cpu"
            raise InputError(what, where="--gpu-memory-utilization", expected="--num-gpu-blocks-override")


def option(name: str) -> str:
    """Return the option of a field."""
    return f"--{name.replace('_', '-')}"


def policy_choice(settings: EngineSettings) -> PolicyChoice:
    """Return the policy asked for: a name or a ``policy.json``, with the options given on top.

    Raises
    ------
    InputError
        If there is no such policy or file, or it has no such setting.
    """
    from_file = settings.policy.endswith(".json")
    name, own = settings.policy, dict[str, Any]()
    if from_file:
        choice = read_policy(settings.policy)
        name, own = choice.name, asdict(choice.settings)
    known = {field.name for field in fields(POLICIES[name][1])} if name in POLICIES else set()
    for key in ("max_num_seqs", "max_num_batched_tokens"):
        value = getattr(settings, key)
        if value is None:
            continue
        if known and key not in known:
            raise InputError(f"policy {name} has no such setting", where=option(key), expected=", ".join(sorted(known)))
        own[key] = value
    asked = parse_choice(name, own, where=settings.policy if from_file else "--policy")
    return replace(asked, predicted=choice.predicted) if from_file else asked


def cost_profile(settings: EngineSettings, choice: PolicyChoice) -> str | None:
    """Return the measurements that a cost model is fitted to: those asked for, else those a search predicted by."""
    return settings.profile or choice.predicted.get("profile")


def build_engine(
    settings: EngineSettings,
    choice: PolicyChoice,
    *,
    longest: int | None,
    tokenizer: Tokenizer | None = None,
    on_progress: OnProgress | None = None,
) -> Engine:
    """Build a runner for a policy (:func:`build_runner`) and put an engine on top, which knows what the policy asks.

    Raises
    ------
    InputError
        If anything asked for is wrong or does not fit.
    """
    profile = cost_profile(settings, choice)
    choice.check_costs(known=costs_known(settings.device, profile))
    runner = build_runner(settings, choice, longest=longest, on_progress=on_progress)
    costs = known_costs(runner, [choice], settings.model, profile)
    return Engine(runner, choice, tokenizer=tokenizer, seed=settings.seed, costs=costs)


def build_runner(
    settings: EngineSettings,
    choice: PolicyChoice,
    *,
    longest: int | None,
    others: Collection[PolicyChoice] = (),
    on_progress: OnProgress | None = None,
) -> Runner:
    """Load the model, size the KV cache, and capture CUDA graphs unless told otherwise.

    Parameters
    ----------
    choice, others
        Policies that will run on it: the KV cache is for the residents of the first, batches are as large as all need.
    longest
        Prompt and output tokens of the longest request, for a default ``max_model_len``; None where unknown.
    on_progress
        Called with the number of captured graphs and that of all.

    Raises
    ------
    InputError
        If anything asked for is wrong or does not fit.
    """
    torch.set_num_threads(settings.threads)
    check_device(settings.device)
    backend = attention_backend(settings.attention_backend, settings.device)
    model = load_model(
        settings.model,
        load_format=settings.load_format,
        dtype=settings.dtype,
        device=settings.device,
        seed=settings.seed,
    )
    layout = kv_layout(model)
    context = _context(settings, model, longest)
    blocks = settings.num_gpu_blocks_override or _blocks(settings, choice, layout, context)
    memory = KVMemory(blocks=blocks, block_size=settings.block_size, max_model_len=context)
    graphs = None if settings.device == "cpu" or settings.enforce_eager else _graph_sizes([choice, *others])
    runner = Runner(model, layout, memory, backend, graphs=graphs, compiled=settings.torch_compile)
    if graphs is not None:
        runner.warm_up(on_progress)
    return runner


def _graph_sizes(choices: Iterable[PolicyChoice]) -> GraphSizes:
    """Return the batches to capture: as many sequences, and as many tokens, as the policies fill a batch with."""
    each = [choice.settings for choice in choices]
    budgets = [next((getattr(own, name) for name in BUDGETS if hasattr(own, name)), None) for own in each]
    return GraphSizes.of(max(own.max_num_seqs for own in each), *budgets)


def _context(settings: EngineSettings, model: Any, longest: int | None) -> int:
    trained = getattr(model.config, "max_position_embeddings", None)
    asked = settings.max_model_len
    if asked is not None and trained is not None and asked > trained:
        what = f"{asked} tokens, longer than the model was trained for"
        raise InputError(what, where="--max-model-len", expected=f"at most {trained}")
    if asked is not None:
        return asked
    needed = None if longest is None else -(-longest // LENGTH_STEP) * LENGTH_STEP
    limits = [int(limit) for limit in (trained, needed) if limit is not None]
    if not limits:
        raise InputError("the model does not say how long a context may be", expected="--max-model-len")
    return min(limits)


def _blocks(settings: EngineSettings, choice: PolicyChoice, layout: KVLayout, context: int) -> int:
    """Return the KV blocks that the memory holds, but no more than all residents can fill."""
    size = settings.block_size * layout.bytes_per_token
    room = _free_bytes(settings) // size
    if settings.device != "cpu":
        room -= SCRATCH_BLOCKS
    if room < 1:
        raise InputError("no memory is left for a KV block", where=settings.device, expected="a smaller model")
    return min(room, choice.settings.max_num_seqs * -(-context // settings.block_size))


def _free_bytes(settings: EngineSettings) -> int:
    if settings.device == "cpu":
        return CPU_KV_BYTES
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info(settings.device)
    return int((settings.gpu_memory_utilization or GPU_SHARE) * total) - (total - free)
