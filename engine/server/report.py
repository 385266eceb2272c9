"""What the engine's process tells of its requests and iterations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from engine.engine import Engine, Iteration
from engine.request import Request
from engine.server.messages import Load, Produced, Served, Step
from policies.prefix_cache import PrefixCachePool


def step_of(engine: Engine, iteration: Iteration, keys: Mapping[int, int], dropped: Sequence[Produced]) -> Step:
    """Return what an iteration made.

    Parameters
    ----------
    keys
        The server's key of each request, by the engine's id.
    dropped
        Requests that were aborted before it.
    """
    batch = iteration.batch
    queries, hits = _looked_up(engine, iteration)
    return Step(
        produced=(*dropped, *(_progress(request, keys[request.request_id]) for request in iteration.sampled)),
        load=load_of(engine),
        start_s=iteration.start_s,
        end_s=iteration.end_s,
        model_s=iteration.model_s,
        predicted_s=iteration.predicted_s,
        prefill_tokens=batch.prefill_tokens,
        decodes=batch.decodes,
        preemptions=batch.preemptions,
        gaps=tuple(iteration.done.gaps),
        ttfts_s=tuple(each.first_token_s - each.arrival_s for each in iteration.done.started),
        cache_queries=queries,
        cache_hits=hits,
    )


def load_of(engine: Engine) -> Load:
    """Return how much an engine has to do, between two steps."""
    return Load(waiting=engine.waiting, running=engine.running, blocks_used=engine.policy.pool.used)


def dropped(request: Request, key: int, now_s: float) -> Produced:
    """Return what is left to say of a request that was aborted, which is nobody's business but the books'."""
    return Produced(key=key, finish="cancelled", served=_served(request, now_s))


def _progress(request: Request, key: int) -> Produced:
    """Return the token that a request just got, and the text that it settled."""
    finish = request.finish_reason
    return Produced(
        key,
        (request.token_ids[-1],),
        request.take_text(),
        () if request.params.logprobs is None else (request.logprobs[-1],),
        finish,
        None if finish is None else _served(request, request.sequence.finished_s),
    )


def _served(request: Request, finished_s: float) -> Served:
    sequence = request.sequence
    return Served(
        arrival_s=sequence.arrival_s,
        scheduled_s=sequence.scheduled_s,
        first_token_s=sequence.first_token_s,
        finished_s=finished_s,
        prompt_tokens=sequence.prompt_tokens,
        cached_tokens=sequence.cached_tokens,
        generated_tokens=len(request.token_ids) - sequence.prompt_tokens,
        preemptions=sequence.preemptions,
    )


def _looked_up(engine: Engine, iteration: Iteration) -> tuple[int, int]:
    """Return the prompt tokens that were looked for and found in the prefix cache: those of newcomers."""
    pool = engine.policy.pool
    if not (isinstance(pool, PrefixCachePool) and pool.enabled):
        return 0, 0
    newcomers = [chunk.sequence for chunk in iteration.batch.chunks if chunk.sequence.scheduled_s == iteration.start_s]
    return sum(each.prompt_tokens for each in newcomers), sum(each.cached_tokens for each in newcomers)
