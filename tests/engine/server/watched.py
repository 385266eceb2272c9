"""An engine that is only watched: the test says what it does."""

from __future__ import annotations

import time
from math import nan
from typing import Any

from engine.sampling import SamplingParams
from engine.server.client import OnFailed, OnIdle, OnStep, Stream, UnservableError
from engine.server.messages import Failed, Finish, Idle, Load, Produced, Ready, Served, Step
from policies import choose
from policies.catalog import policy_of
from profiler.deployment import Deployment
from traces.errors import InputError

DEPLOYMENT = Deployment(model="mistral-7b", device="a100-sxm", max_model_len=4096)


def ready(name: str = "sarathi-serve", *, deployment: Deployment | None = DEPLOYMENT, **own: Any) -> Ready:
    return Ready(
        max_model_len=4096,
        vocab=1000,
        kv_blocks=1000,
        block_size=16,
        policy=choose(name).as_dict() | own,
        predicts=deployment is not None,
        deployment=deployment,
    )


class Watched:
    """An :class:`engine.server.client.EngineClient` without requests."""

    def __init__(self, said: Ready) -> None:
        self.ready = said
        self.unhealthy: str | None = None
        self.replicas = (self,)
        self._on_step: list[OnStep] = []
        self._on_idle: list[OnIdle] = []
        self._on_failed: list[OnFailed] = []

    def submit(self, prompt_token_ids: list[int], params: SamplingParams, *, count: int = 1) -> list[Stream]:
        raise AssertionError("nobody asks here")

    async def swap(self, policy: dict[str, Any]) -> dict[str, Any]:
        try:
            choice = policy_of(policy, where="the policy")
        except InputError as error:
            raise UnservableError(str(error)) from error
        self.ready = ready(choice.name, deployment=self.ready.deployment, **choice.as_dict())
        return self.ready.policy

    def watch(self, on_step: OnStep, on_idle: OnIdle | None = None, on_failed: OnFailed | None = None) -> None:
        self._on_step.append(on_step)
        if on_idle is not None:
            self._on_idle.append(on_idle)
        if on_failed is not None:
            self._on_failed.append(on_failed)

    async def ended(self) -> str | None:
        raise AssertionError("it does not end")

    async def drain(self, timeout_s: float | None = None) -> None:
        raise AssertionError("nobody drains it")

    async def close(self) -> None:
        """Nothing to end."""

    def say(self, event: Step | Idle | Failed) -> None:
        if isinstance(event, Step):
            for on_step in self._on_step:
                on_step(event)
        elif isinstance(event, Failed):
            for on_failed in self._on_failed:
                on_failed(event)
        else:
            for on_idle in self._on_idle:
                on_idle(event)


def step(
    *produced: Produced,
    end_s: float | None = None,
    time_s: float = 0.02,
    predicted_s: float | None = 0.022,
    load: Load | None = None,
    **others: Any,
) -> Step:
    end_s = time.perf_counter() if end_s is None else end_s
    values: dict[str, Any] = {
        "prefill_tokens": 0,
        "decodes": 0,
        "preemptions": 0,
        "gaps": (),
        "ttfts_s": (),
        "cache_queries": 0,
        "cache_hits": 0,
    }
    return Step(
        produced=produced,
        load=load or Load(waiting=1, running=2, blocks_used=250),
        start_s=end_s - time_s,
        end_s=end_s,
        model_s=time_s / 2,
        predicted_s=predicted_s,
        **(values | others),
    )


def served(arrival_s: float, *, prompt: int = 100, output: int = 11, cached: int = 0, started: bool = True) -> Served:
    return Served(
        arrival_s=arrival_s,
        scheduled_s=arrival_s + 0.5 if started else nan,
        first_token_s=arrival_s + 1.5 if started else nan,
        finished_s=arrival_s + 4.0,
        prompt_tokens=prompt,
        cached_tokens=cached,
        generated_tokens=output if started else 0,
        preemptions=0,
    )


def ended(key: int, arrival_s: float, *, finish: Finish = "length", **others: Any) -> Produced:
    return Produced(key=key, token_ids=(1,), finish=finish, served=served(arrival_s, **others))
