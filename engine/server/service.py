"""The scheduler's loop: commands in, iterations, what they made out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from queue import Empty, SimpleQueue

import torch

from engine.engine import Engine
from engine.request import Request
from engine.server.messages import (
    Abort,
    Failed,
    FromEngine,
    Idle,
    Produced,
    Ready,
    Refused,
    Stop,
    Stopped,
    Submit,
    Swap,
    Swapped,
    ToEngine,
)
from engine.server.recorder import Follower, Unrecorded
from engine.server.report import dropped, load_of, step_of
from engine.shortage import first_line, is_shortage
from policies.catalog import policy_of
from policies.integrity import count_problem
from profiler.cost_model import CostModel
from traces.errors import InputError

log = logging.getLogger(__name__)

MOST_FAILURES = 3
"""Iterations that fail in a row before the engine gives up."""


class BrokenEngineError(Exception):
    """The engine cannot go on, and why, in one line."""


class Service:
    """One engine and nothing else; only its own thread touches it.

    Parameters
    ----------
    engine
        It goes by the machine's clock.
    inbox
        Commands, as they come.
    send
        Takes what goes to the server, and waits for nothing.
    profile
        What the engine's cost model is fitted to.
    follower
        Sees all that the engine does.
    """

    def __init__(
        self,
        engine: Engine,
        inbox: SimpleQueue[Sequence[ToEngine]],
        send: Callable[[FromEngine], None],
        *,
        profile: str | None = None,
        follower: Follower | None = None,
    ) -> None:
        self._engine = engine
        self._inbox = inbox
        self._send = send
        self._profile = profile
        self._follower = follower or Unrecorded()
        self._live: dict[int, Request] = {}
        self._keys: dict[int, int] = {}
        self._dropped: list[Produced] = []
        self._start_s: float | None = None
        self._failures = 0
        self._stopping = False

    def run(self) -> None:
        """Serve until told to stop.

        Raises
        ------
        BrokenEngineError
            If the engine cannot go on.
        """
        self._send(self._ready())
        while self._engine.has_work or not self._stopping:
            for command in self._commands():
                self._obey(command)
            if self._engine.has_work:
                self._iterate()
            if not self._engine.has_work:
                self._rest()
        self._send(Stopped())

    def close(self) -> None:
        """Let the follower know that nothing more comes; wait until it has done its part."""
        self._follower.close(list(self._live.values()))

    def _ready(self) -> Ready:
        memory = self._engine.runner.memory
        return Ready(
            max_model_len=memory.max_model_len,
            vocab=self._engine.runner.vocab,
            kv_blocks=memory.blocks,
            block_size=memory.block_size,
            policy=self._engine.choice.as_dict(),
            predicts=self._engine.predicts,
            deployment=self._engine.costs.deployment if isinstance(self._engine.costs, CostModel) else None,
            profile=self._profile,
        )

    # --- commands ---

    def _commands(self) -> Iterator[ToEngine]:
        """Yield what has come; wait for it where there is nothing else to do."""
        try:
            yield from self._inbox.get(block=not (self._engine.has_work or self._stopping))
            while True:
                yield from self._inbox.get_nowait()
        except Empty:
            return

    def _obey(self, command: ToEngine) -> None:
        match command:
            case Submit():
                self._submit(command)
            case Abort():
                for key in command.keys:
                    self._drop(key)
            case Swap():
                self._swap(command)
            case Stop():
                self._stopping = True
                if not command.drain:
                    for key in list(self._live):
                        self._drop(key)

    def _submit(self, command: Submit) -> None:
        """Take a request; what is wrong with one is its own affair."""
        try:
            request = self._engine.add_request(command.prompt_token_ids, command.params, arrival_s=command.arrival_s)
        except InputError as error:
            self._send(Refused(key=command.key, message=str(error)))
        except Exception as error:
            log.exception("a request could not be taken in")
            self._send(Failed(keys=(command.key,), message=f"the request could not be taken in: {first_line(error)}"))
        else:
            self._live[command.key] = request
            self._keys[request.request_id] = command.key
            self._follower.arrived(request)
            if self._start_s is not None:
                self._start_s = max(self._start_s, command.arrival_s)

    def _drop(self, key: int) -> None:
        """Abort a request, unless it has ended."""
        request = self._live.get(key)
        if request is not None:
            self._engine.cancel(request)
            self._dropped.append(dropped(request, key, self._engine.clock.now_s()))
            self._follower.left((request,))
            self._forget(request)

    def _forget(self, request: Request) -> None:
        del self._live[self._keys.pop(request.request_id)]

    def _swap(self, command: Swap) -> None:
        """Put another policy in charge; where that is refused, the old one rules on."""
        problem = None
        try:
            self._engine.swap_policy(policy_of(command.policy, where="policy"))
            self._follower.swapped()
        except InputError as error:
            problem = str(error)
        self._insist(self._engine.kv_problem())
        self._send(Swapped(ticket=command.ticket, policy=self._engine.choice.as_dict(), error=problem))

    # --- iterations ---

    def _iterate(self) -> None:
        """Run an iteration; it begins when the one before ended, or the youngest request came that it may hold."""
        try:
            iteration = self._engine.step(self._start_s)
        except Exception as error:
            self._fail(error)
            return
        assert iteration is not None, "work, and nothing to run"
        self._failures = 0
        self._start_s = iteration.end_s
        self._follower.ran(iteration)
        self._send(step_of(self._engine, iteration, self._keys, self._dropped))
        self._dropped.clear()
        for request in iteration.finished:
            self._forget(request)
        self._insist(count_problem(self._engine.policy))

    def _fail(self, error: Exception) -> None:
        """End the requests of the batch in which the model failed; the others go on."""
        log.error("an iteration failed", exc_info=error)
        message = f"the model failed: {type(error).__name__}: {first_line(error)}"
        lost = self._engine.abandon()
        if not lost:
            raise BrokenEngineError(f"the scheduler failed: {type(error).__name__}: {first_line(error)}")
        self._start_s = None
        self._failures += 1
        self._follower.left(lost)
        self._send(Failed(keys=tuple(self._keys[request.request_id] for request in lost), message=message))
        for request in lost:
            self._forget(request)
        self._insist(self._engine.kv_problem())
        if self._failures == MOST_FAILURES:
            raise BrokenEngineError(f"{MOST_FAILURES} iterations in a row failed; the last: {message}")
        if is_shortage(error) and self._engine.runner.device.type == "cuda":
            error.__traceback__ = None
            torch.cuda.empty_cache()

    def _rest(self) -> None:
        """Look whether all KV is there again, and say what became of requests that left without an iteration."""
        self._start_s = None
        self._insist(self._engine.kv_problem())
        self._send(Idle(produced=tuple(self._dropped), load=load_of(self._engine)))
        self._dropped.clear()

    @staticmethod
    def _insist(problem: str | None) -> None:
        if problem is not None:
            raise BrokenEngineError(f"the KV cache does not add up: {problem}")
