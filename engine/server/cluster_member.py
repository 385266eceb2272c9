"""A replica in a cluster of engines, as its router and whoever watches it know it."""

from __future__ import annotations

from collections.abc import Callable

from engine.server.client import OnFailed, OnIdle, OnStep
from engine.server.messages import Failed, Idle, Load, Ready, Step
from engine.server.process_client import ProcessClient

NOTHING = Load(waiting=0, running=0, blocks_used=0)


class ClusterMember:
    """A place in the cluster, and the engine that fills it: another one after each failure.

    It is a :class:`policies.routing.router.Member`; of KV it knows what the engine said after its latest iteration.

    Parameters
    ----------
    index, weight
        Its number, and how much it serves compared with the others.
    on_lighter
        Called when its KV in use has become less.

    Attributes
    ----------
    client
        The engine; None while there is none.
    load
        What the engine said last.
    """

    def __init__(self, index: int, weight: float, on_lighter: Callable[[ClusterMember], None]) -> None:
        self.index, self.weight = index, weight
        self.kv_blocks = 1
        self.client: ProcessClient | None = None
        self.load = NOTHING
        self._said: Ready | None = None
        self._on_lighter = on_lighter
        self._on_step: list[OnStep] = []
        self._on_idle: list[OnIdle] = []
        self._on_failed: list[OnFailed] = []

    @property
    def requests(self) -> int:
        """Requests that it has been given and that have not ended."""
        return 0 if self.client is None else self.client.requests

    def blocks_used(self, now_s: float) -> int:  # noqa: ARG002
        """Return the KV blocks in use."""
        return self.load.blocks_used

    @property
    def ready(self) -> Ready:
        """What its engine said when the model was loaded, with the policy that rules now."""
        if self.client is not None:
            self._said = self.client.ready
        assert self._said is not None, "it was never filled"
        return self._said

    def watch(self, on_step: OnStep, on_idle: OnIdle | None = None, on_failed: OnFailed | None = None) -> None:
        """Call ``on_step`` after every iteration of whatever engine is here, ``on_idle`` when it has nothing to do,
        ``on_failed`` when an iteration failed."""
        self._on_step.append(on_step)
        if on_idle is not None:
            self._on_idle.append(on_idle)
        if on_failed is not None:
            self._on_failed.append(on_failed)

    def fill(self, client: ProcessClient) -> None:
        """Take an engine in."""
        self.client = client
        self.kv_blocks = self.ready.kv_blocks
        client.watch(self._step, self._idle, self._fail)

    def empty(self) -> None:
        """Let the engine go, which is dead; those who watch hear that nothing is left."""
        _ = self.ready
        self.client = None
        self._idle(Idle(produced=(), load=NOTHING))

    def _step(self, step: Step) -> None:
        self._note(step.load)
        for listener in self._on_step:
            listener(step)

    def _idle(self, idle: Idle) -> None:
        self._note(idle.load)
        for listener in self._on_idle:
            listener(idle)

    def _fail(self, failed: Failed) -> None:
        for listener in self._on_failed:
            listener(failed)

    def _note(self, load: Load) -> None:
        lighter = load.blocks_used < self.load.blocks_used
        self.load = load
        if lighter:
            self._on_lighter(self)
