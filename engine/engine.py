"""The engine: the policy decides, the runner runs, tokens come out."""

from __future__ import annotations

from collections.abc import Sequence as Listing
from dataclasses import dataclass, replace
from time import perf_counter

import torch

from engine.clock import Clock, WallClock
from engine.input import Slice
from engine.loading import stop_ids
from engine.prefix import block_hashes
from engine.request import Request
from engine.runner import Runner
from engine.sampling import SamplingParams, choose_tokens, token_logprobs
from engine.text import TextStream, Tokenizer
from policies.batch import Batch, Completion
from policies.catalog import PolicyChoice
from policies.costs import Costs
from policies.integrity import kv_problem
from policies.policy import Policy
from policies.prefix_cache import PrefixCachePool
from policies.sequence import Sequence
from traces.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Iteration:
    """One iteration that has run.

    Attributes
    ----------
    batch, done
        What ran (its decodes are no longer listed), and what the policy made of it.
    start_s, end_s
        By the engine's clock.
    model_s
        Seconds from when the batch was handed to the runner to when its tokens were there, by the time that
        passed in the world: the model and sampling. What else the iteration took went to scheduling, laying the
        batch out, and taking its tokens in.
    waiting, running, blocks_used
        Queue length, residents and KV blocks in use, right after the batch was scheduled.
    sampled
        The requests that got a token.
    finished
        The requests that ended.
    predicted_s
        What the engine's predictor says of the batch, None without one.
    """

    batch: Batch
    done: Completion
    start_s: float
    end_s: float
    model_s: float
    waiting: int
    running: int
    blocks_used: int
    sampled: tuple[Request, ...]
    finished: tuple[Request, ...]
    predicted_s: float | None


class Engine:
    """Serves requests on one runner under one policy.

    Parameters
    ----------
    runner
        The model and its KV cache; the policy gets all of its blocks.
    choice
        The policy.
    tokenizer
        For text and stop strings; without one there are token ids alone.
    seed
        For requests that bring none.
    clock
        By which everything is timed; the time that passes in the world by default.
    costs
        For a policy that asks how long batches take (:func:`engine.costs.known_costs`).
    predictor
        Asked about every batch before it runs, for :attr:`Iteration.predicted_s`.

    Raises
    ------
    InputError
        If the policy does not go with the runner's memory, or needs ``costs``.
    """

    def __init__(
        self,
        runner: Runner,
        choice: PolicyChoice,
        *,
        tokenizer: Tokenizer | None = None,
        seed: int = 0,
        clock: Clock | None = None,
        costs: Costs | None = None,
        predictor: Costs | None = None,
    ) -> None:
        self.runner = runner
        self.choice = choice
        self.costs = costs
        self.policy = choice.build(runner.memory, costs=costs)
        self.tokenizer = tokenizer
        self.seed = seed
        self.clock: Clock = WallClock() if clock is None else clock
        self._predictor = predictor
        self._stop_ids = frozenset(token for token in stop_ids(runner.model) if 0 <= token < runner.vocab)
        self._next_id = 0
        self._live: dict[int, Request] = {}
        self._in_flight: Batch | None = None

    @property
    def has_work(self) -> bool:
        """Whether any request waits or is in service."""
        return self.policy.has_work

    @property
    def predicts(self) -> bool:
        """Whether iterations come with their predicted time."""
        return self._predictor is not None

    @property
    def running(self) -> int:
        """Requests that hold KV, between two steps."""
        return len(self.policy.decodes) + len(self.policy.prefilling)

    @property
    def waiting(self) -> int:
        """Requests that hold none, between two steps."""
        return len(self._live) - self.running

    @property
    def next_id(self) -> int:
        """The id of the next request."""
        return self._next_id

    # --- requests in ---

    def add_request(
        self, prompt_token_ids: Listing[int], params: SamplingParams, *, arrival_s: float | None = None
    ) -> Request:
        """Take a request; ``arrival_s`` by the engine's clock, now by default, not before the last one's.

        Raises
        ------
        InputError
            If it can never be served: an empty prompt, an unknown token, more tokens than the context or the
            KV cache hold, a stop string without a tokenizer. Requests in service are not touched.
        """
        params = self._check(prompt_token_ids, params)
        assert params.max_tokens is not None
        sequence = Sequence(
            self._next_id,
            arrival_s=self.clock.now_s() if arrival_s is None else arrival_s,
            prompt_tokens=len(prompt_token_ids),
            output_tokens=params.max_tokens,
            block_hashes=self._block_hashes(self.policy, prompt_token_ids),
        )
        request = Request(
            sequence,
            prompt_token_ids,
            params,
            stop_ids=frozenset(params.stop_token_ids) | (frozenset() if params.ignore_eos else self._stop_ids),
            generator=torch.Generator().manual_seed(self._seed(params, self._next_id)),
            stream=None if self.tokenizer is None else TextStream(self.tokenizer, params.stop),
        )
        self.policy.add(sequence)
        self._live[self._next_id] = request
        self._next_id += 1
        return request

    def cancel(self, request: Request) -> None:
        """Drop a request, between two steps; one that has ended stays as it is."""
        if self._live.pop(request.request_id, None) is not None:
            self.policy.cancel(request.sequence)
            request.finish("cancelled")

    def _check(self, prompt: Listing[int], params: SamplingParams) -> SamplingParams:
        """Return the parameters with ``max_tokens`` filled in."""
        context, vocab = self.policy.memory.max_model_len, self.runner.vocab
        if not prompt:
            raise InputError("an empty prompt", expected="at least one token")
        if len(prompt) >= context:
            what = f"a prompt of {len(prompt)} tokens"
            raise InputError(what, expected=f"fewer than --max-model-len {context}")
        unknown = next((token for token in (*prompt, *params.stop_token_ids) if not 0 <= token < vocab), None)
        if unknown is not None:
            raise InputError(f"unknown token id {unknown}", expected=f"0 to {vocab - 1}")
        if params.stop and self.tokenizer is None:
            raise InputError("a stop string without a tokenizer", expected="stop_token_ids")
        if params.max_tokens is None:
            params = replace(params, max_tokens=context - len(prompt))
        return params

    @staticmethod
    def _block_hashes(policy: Policy, prompt: Listing[int]) -> list[bytes]:
        pool = policy.pool
        if isinstance(pool, PrefixCachePool) and pool.enabled:
            return block_hashes(prompt, pool.memory.block_size)
        return []

    def _seed(self, params: SamplingParams, request_id: int) -> int:
        """Return the request's own seed, or one of the engine's; large odd steps keep those of neighbours far apart."""
        if params.seed is not None:
            return params.seed
        return (self.seed * 0x9E3779B97F4A7C15 + request_id * 0xBF58476D1CE4E5B9) % 2**63

    # --- another policy ---

    def swap_policy(self, choice: PolicyChoice, *, costs: Costs | None = None) -> list[Request]:
        """Put another policy in charge, between two steps; return the requests that have to compute their KV again.

        All requests go on (:meth:`policies.policy.Policy.succeed`). The runner stays as it was built: batches larger
        than those it captured run without CUDA graphs, in the memory that ``gpu_memory_utilization`` left over.

        Parameters
        ----------
        costs
            For a policy that asks; those the engine knows by default.

        Raises
        ------
        InputError
            If the policy does not go with the runner's memory, has no cost model and needs one, or can never serve one
            of the requests; then nothing has changed.
        """
        costs = self.costs if costs is None else costs
        policy = choice.build(self.runner.memory, costs=costs)
        for request in self._live.values():
            if not request.sequence.block_hashes:
                request.sequence.block_hashes = self._block_hashes(policy, request.prompt_token_ids)
        leaving = policy.succeed(self.policy)
        self.choice, self.costs, self.policy = choice, costs, policy
        return [self._live[sequence.request_id] for sequence in leaving]

    # --- iterations ---

    def step(self, start_s: float | None = None) -> Iteration | None:
        """Run one iteration; None where nothing is to run.

        ``start_s`` is when it began by the engine's clock, now by default. Whoever hands in the end of the
        iteration before, while there is work, leaves no time between two iterations unaccounted for.
        """
        start_s = self.clock.now_s() if start_s is None else start_s
        batch = self.policy.schedule(start_s)
        if batch is None:
            assert not self.has_work, f"policy {self.policy.name} has work and schedules nothing"
            return None
        seen = len(self.policy.waiting), self.policy.residents, self.policy.pool.used
        predicted_s = None if self._predictor is None else self._predictor.iteration_time(batch)
        self._in_flight = batch
        sampled, model_s = self._run(batch)
        end_s = self.clock.now_s()
        self._in_flight = None
        stopped = [request.sequence for request in sampled if request.finish_reason is not None]
        done = self.policy.complete(batch, end_s, stopped=stopped)
        finished = tuple(self._live.pop(sequence.request_id) for sequence in done.finished)
        if not self.has_work:
            self._rest(end_s)
        waiting, running, used = seen
        return Iteration(
            batch=batch,
            done=done,
            start_s=start_s,
            end_s=end_s,
            model_s=model_s,
            waiting=waiting,
            running=running,
            blocks_used=used,
            sampled=tuple(sampled),
            finished=finished,
            predicted_s=predicted_s,
        )

    def abandon(self) -> list[Request]:
        """Give up the batch in which :meth:`step` raised: its requests end, and their KV is free.

        Returns
        -------
        list
            Those requests; none where no batch was running, so that it was not the model that failed.
        """
        batch, self._in_flight = self._in_flight, None
        if batch is None:
            return []
        lost = [self._live.pop(sequence.request_id) for sequence in self.policy.abandon(batch)]
        for request in lost:
            request.finish("cancelled")
        return lost

    def _run(self, batch: Batch) -> tuple[list[Request], float]:
        """Run a batch and give its requests their tokens; return those that got one, and the seconds of the model."""
        chunks = [(self._live[chunk.sequence.request_id], chunk) for chunk in batch.chunks]
        decodes = [self._live[sequence.request_id] for sequence in batch.decode_sequences()]
        slices = [
            Slice(
                request.token_ids[chunk.past : chunk.past + chunk.tokens],
                chunk.past,
                chunk.sequence.blocks,
                samples=chunk.ends_prompt,
            )
            for request, chunk in chunks
        ]
        slices += [
            Slice(request.token_ids[-1:], len(request.token_ids) - 1, request.sequence.blocks, samples=True)
            for request in decodes
        ]
        sampled = [request for request, chunk in chunks if chunk.ends_prompt] + decodes
        inputs = self.runner.batch_input(slices)
        start_s = perf_counter()
        raw_sv = self.runner.forward(inputs)
        tokens = self._choose(raw_sv, sampled)
        self.runner.wait()
        model_s = perf_counter() - start_s
        for row, (request, token) in enumerate(zip(sampled, tokens, strict=True)):
            if request.params.logprobs is not None:
                request.logprobs.append(token_logprobs(raw_sv[row], token, request.params.logprobs))
            request.accept(token)
        return sampled, model_s

    @staticmethod
    def _choose(logits_sv: torch.Tensor, requests: Listing[Request]) -> list[int]:
        """Return the next token of each request."""
        banned = [(row, request.banned) for row, request in enumerate(requests) if request.banned]
        if banned:
            logits_sv = logits_sv.clone()
            for row, tokens in banned:
                logits_sv[row, tokens] = -torch.inf
        generators = [request.generator for request in requests]
        return choose_tokens(logits_sv, [request.params for request in requests], generators)

    def _rest(self, now_s: float) -> None:
        """Let the policy see that nothing is left; whoever has no work holds no block."""
        batch = self.policy.schedule(now_s)
        assert batch is None, f"policy {self.policy.name} has no work and schedules {batch}"
        assert not self.policy.pool.used, f"{self.policy.pool.used} blocks leaked"
        assert not self._live, f"{len(self._live)} requests are left behind"

    def kv_problem(self) -> str | None:
        """Return what does not add up in the KV cache between two steps, None where all does; O(blocks in use)."""
        return kv_problem(self.policy, [request.sequence for request in self._live.values()])

    # --- a list of prompts ---

    def generate(
        self, prompts: Listing[Listing[int]], params: SamplingParams | Listing[SamplingParams]
    ) -> list[Request | InputError]:
        """Serve prompts that are all there at once; return, in order, each served or what is wrong with it."""
        each = [params] * len(prompts) if isinstance(params, SamplingParams) else list(params)
        if len(each) != len(prompts):
            raise ValueError(f"{len(each)} sampling parameters for {len(prompts)} prompts")
        arrival_s, outcomes = self.clock.now_s(), list[Request | InputError]()
        for prompt, own in zip(prompts, each, strict=True):
            try:
                outcomes.append(self.add_request(prompt, own, arrival_s=arrival_s))
            except InputError as error:
                outcomes.append(error)
        while self.has_work:
            self.step()
        return outcomes
