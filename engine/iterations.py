"""Whole iterations of the engine at designed batches, for the profiler: they cost what single ops do not show."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from engine.engine import Engine
from engine.runner import Runner
from engine.sampling import SamplingParams
from engine.session import EngineSettings, build_runner
from policies.batch import Batch
from policies.blocks import KVMemory
from policies.catalog import PolicyChoice, choose
from policies.costs import Costs
from policies.policy import Policy
from policies.sequence import Sequence as Served
from profiler.iteration import ENDS_PROMPT, decode_contexts, kv_blocks
from profiler.kernels import OpShape, Run

BLOCK_SIZE = 16


@dataclass(frozen=True, slots=True)
class Share:
    """What a request brings to a designed batch: ``tokens`` of its prompt, ``past`` of which are in the cache."""

    prompt_tokens: int
    past: int
    tokens: int


class DesignedPolicy(Policy):
    """Runs, in one batch, requests that come with part of their KV in the cache.

    Attributes
    ----------
    coming
        What the next requests bring, in their order.
    """

    name = "designed"

    def __init__(self, memory: KVMemory) -> None:
        super().__init__(choose("vllm-v1").settings, memory)
        self.coming: deque[Share] = deque()
        self._tokens: dict[Served, int] = {}

    def add(self, sequence: Served) -> None:
        """Take a request as a resident: with one token left it decodes, with more it prefills."""
        share = self.coming.popleft()
        self.pool.allocate(sequence, self.memory.blocks_for(sequence.prompt_tokens))
        sequence.computed = share.past
        self.residents += 1
        if share.tokens == 1:
            self.decodes.add(sequence)
        else:
            self.prefilling.append(sequence)
            self._tokens[sequence] = share.tokens

    def _fill(self, batch: Batch) -> None:
        for sequence in self.prefilling:
            batch.prefill(sequence, self._tokens.pop(sequence))
        self.prefilling.clear()
        batch.decode(self.decodes.take(len(self.decodes)))


@dataclass(frozen=True, kw_only=True)
class DesignedChoice(PolicyChoice):
    """Chooses :class:`DesignedPolicy`."""

    def build(self, memory: KVMemory, *, stages: int = 1, costs: Costs | None = None) -> Policy:  # noqa: ARG002
        """Return a fresh policy object."""
        return DesignedPolicy(memory)


class EngineIterations:
    """Times whole iterations: scheduling, the batch's layout, the model, sampling, completion.

    Each is timed by the engine's clock from before it is scheduled to after its tokens are out; a replay's
    iteration also takes new requests in and logs the one before. What lies in the KV cache is left from iterations
    before; nothing is read twice that a serving engine would not read twice.

    Parameters
    ----------
    runner
        The engine's own, with KV blocks for the largest batch (:func:`kv_tokens`).
    """

    def __init__(self, runner: Runner) -> None:
        choice = choose("vllm-v1")
        self._engine = Engine(runner, DesignedChoice(name="designed", settings=choice.settings))
        self._random = random.Random(0)

    def prepare(self, shape: OpShape) -> Run:
        """Return a call that runs one iteration of ``shape`` and returns its seconds."""
        shares = slices(shape)
        return lambda: self._run(shares)

    def seconds(self, run: Run, repeats: int) -> Sequence[float]:
        """Return the seconds of each of ``repeats`` calls."""
        return [float(run()) for _ in range(repeats)]  # type: ignore[arg-type]

    def _run(self, shares: Sequence[Share]) -> float:
        engine, policy = self._engine, self._engine.policy
        assert isinstance(policy, DesignedPolicy)
        policy.coming.extend(shares)
        params = SamplingParams(temperature=0, max_tokens=2, ignore_eos=True)
        requests = [engine.add_request(self._prompt(share.prompt_tokens), params) for share in shares]
        iteration = engine.step()
        assert iteration is not None
        for request in requests:
            engine.cancel(request)
        return iteration.end_s - iteration.start_s

    def _prompt(self, tokens: int) -> list[int]:
        return self._random.choices(range(self._engine.runner.vocab), k=tokens)


def slices(shape: OpShape) -> list[Share]:
    """Return what the requests of a designed iteration bring: chunks, then decodes with spread contexts."""
    more = 0 if shape.kind == ENDS_PROMPT else 1
    end = shape.past_tokens + shape.query_tokens
    chunks = [Share(end + more, shape.past_tokens, shape.query_tokens)] * shape.sequences
    return chunks + [Share(context, context - 1, 1) for context in decode_contexts(shape)]


def engine_iterations(model: str, shapes: Sequence[OpShape], *, device: str, dtype: str) -> EngineIterations:
    """Return an engine on ``model`` with random weights that runs ``shapes``, with its device's own attention.

    Raises
    ------
    InputError
        If there is no such model, or the device has no room for it and the KV of the largest batch.
    """
    blocks = max(kv_blocks(shape, BLOCK_SIZE) for shape in shapes)
    settings = EngineSettings(
        model=model,
        load_format="dummy",
        device=device,
        dtype=dtype,
        block_size=BLOCK_SIZE,
        num_gpu_blocks_override=blocks,
        threads=torch.get_num_threads(),
    )
    most = max(shape.sequences + shape.decodes for shape in shapes)
    return EngineIterations(build_runner(settings, choose("vllm-v1", max_num_seqs=most), longest=None))
