"""What the engine did in the last minutes, second by second."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from itertools import takewhile
from math import floor, isnan
from typing import Any

from engine.server.client import EngineClient
from engine.server.forecast import Ended
from engine.server.messages import Idle, Load, Served, Step
from engine.server.quantiles import Quantiles

MINUTES = 15
RECENT_S = 30
"""Percentiles are those of so many seconds up to now."""
PERCENTS = (50, 99)
MOST_REQUESTS = 512
"""Requests that ended, of which the latest are kept."""
MOST_SWAPS = 64


@dataclass(slots=True)
class Second:
    """What happened in a second; ``load`` as it was at its end, times in seconds."""

    load: Load
    prompt_tokens: int = 0
    output_tokens: int = 0
    finished: int = 0
    preemptions: int = 0
    iterations: int = 0
    iterations_s: float = 0.0
    predicted: int = 0
    predicted_s: float = 0.0
    ttft: Quantiles = field(default_factory=Quantiles)
    tbt: Quantiles = field(default_factory=Quantiles)

    def take(self, step: Step) -> None:
        """Add an iteration."""
        self.prompt_tokens += step.prefill_tokens
        self.output_tokens += sum([len(each.token_ids) for each in step.produced])
        self.preemptions += step.preemptions
        self.iterations += 1
        self.iterations_s += step.end_s - step.start_s
        if step.predicted_s is not None:
            self.predicted += 1
            self.predicted_s += step.predicted_s
        for ttft_s in step.ttfts_s:
            self.ttft.add(ttft_s)
        for gap_s, count in step.gaps:
            self.tbt.add(gap_s, count)


class History:
    """Follows an engine, and keeps of it what a few minutes hold: a bounded amount, whatever happens.

    No time passes by itself: seconds are closed when an iteration ends in a later one, or somebody looks.

    Parameters
    ----------
    client
        The engine.
    minutes
        How long to look back.

    Attributes
    ----------
    ended
        The latest requests that ended with some output, oldest first.
    swaps
        (time, policy) of the policies that ruled since the start, the latest of them.
    """

    def __init__(self, client: EngineClient, *, minutes: int = MINUTES) -> None:
        self._client = client
        self._kv_blocks = client.ready.kv_blocks
        self._epoch_s = time.time() - time.perf_counter()
        self._second = floor(time.perf_counter())
        self._now = Second(Load(waiting=0, running=0, blocks_used=0))
        self._closed: deque[dict[str, Any]] = deque(maxlen=60 * minutes)
        self._latest: deque[tuple[Quantiles, Quantiles]] = deque(maxlen=RECENT_S)
        self.ended: deque[Ended] = deque(maxlen=MOST_REQUESTS)
        self.swaps: deque[tuple[float, dict[str, Any]]] = deque(maxlen=MOST_SWAPS)
        self._note_policy(time.perf_counter())
        client.watch(self.take, self.take)

    def take(self, event: Step | Idle) -> None:
        """Take note of an iteration, or of requests that left without one."""
        now_s = event.end_s if isinstance(event, Step) else time.perf_counter()
        self.advance(now_s)
        self._now.load = event.load
        for each in event.produced:
            if each.finish is not None:
                self._now.finished += 1
                if each.served is not None:
                    self._keep(each.served)
        if isinstance(event, Step):
            self._now.take(event)

    def _keep(self, served: Served) -> None:
        if served.generated_tokens > 0 and not isnan(served.first_token_s):
            self.ended.append(
                Ended(
                    arrival_s=served.arrival_s,
                    ended_s=served.finished_s,
                    prompt_tokens=served.prompt_tokens,
                    cached_tokens=served.cached_tokens,
                    output_tokens=served.generated_tokens,
                )
            )

    def advance(self, now_s: float) -> None:
        """Close all seconds that are over at ``now_s``."""
        self._note_policy(now_s)
        second = floor(now_s)
        missed = second - self._second - (self._closed.maxlen or 0)
        if missed > 0:
            self._second += missed
        while self._second < second:
            self._close()

    def _note_policy(self, now_s: float) -> None:
        policy = self._client.ready.policy
        if not self.swaps or self.swaps[-1][1] != policy:
            self.swaps.append((self._epoch_s + now_s, policy))

    def _close(self) -> None:
        over = self._now
        self._latest.append((over.ttft, over.tbt))
        self._closed.append(
            {
                "time_s": round(self._epoch_s + self._second, 3),
                "running": over.load.running,
                "waiting": over.load.waiting,
                "kv_use": over.load.blocks_used / self._kv_blocks,
                "prompt_tokens": over.prompt_tokens,
                "output_tokens": over.output_tokens,
                "finished": over.finished,
                "preemptions": over.preemptions,
                "iteration_s": over.iterations_s / over.iterations if over.iterations else None,
                "predicted_s": over.predicted_s / over.predicted if over.predicted else None,
                **self._latencies(),
            }
        )
        self._second += 1
        self._now = Second(over.load)

    def _latencies(self) -> dict[str, float | None]:
        ttft, tbt = (Quantiles.of(filter(None, parts)) for parts in zip(*self._latest, strict=True))
        found = {f"ttft_p{percent}_s": ttft.percentile(percent) for percent in PERCENTS}
        return found | {f"tbt_p{percent}_s": tbt.percentile(percent) for percent in PERCENTS}

    def since(self, time_s: float) -> list[dict[str, Any]]:
        """Return the seconds after ``time_s`` (of the world's clock), oldest first; call :meth:`advance` before."""
        later = list(takewhile(lambda each: each["time_s"] > time_s, reversed(self._closed)))
        return later[::-1]
