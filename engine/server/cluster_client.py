"""Several engines as one, behind a router of the simulator's."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import replace
from itertools import count as numbers
from math import inf
from time import perf_counter
from typing import Any

from engine.prefix import block_hashes
from engine.sampling import SamplingParams, each_output
from engine.server.admission import Admission
from engine.server.client import EngineDownError, OnFailed, OnIdle, OnStep, Stream, UnservableError
from engine.server.cluster_member import ClusterMember
from engine.server.cluster_stream import ClusterStream
from engine.server.limits import Limits
from engine.server.messages import Idle, Load, Ready, Step
from engine.server.process_client import STOPPED, ProcessClient
from policies.routing.catalog import RouterChoice
from policies.sequence import Sequence as Routed

log = logging.getLogger(__name__)


class ClusterClient:
    """An :class:`engine.server.client.EngineClient` over replicas that may fail and come back.

    The router is the very object of the simulator; here as there it hears of every request that ends, of KV that comes
    free where it asks for that, and of replicas that fail and are back. A request whose replica fails goes through the
    router again if nothing of it has been given out; else it gets the error.

    Parameters
    ----------
    weights
        How much each replica serves compared with the others, by its number.
    router
        Which router chooses.
    limits
        What the cluster takes on: ``max_queue`` counts for all replicas together.
    seed
        Of the router's random draws.
    dismiss
        Called once all engines have ended because they were told to: nothing is to bring them back.
    """

    def __init__(
        self,
        weights: Sequence[float],
        router: RouterChoice,
        limits: Limits | None = None,
        *,
        seed: int = 0,
        dismiss: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._limits = limits or Limits()
        self._admission = Admission(self._limits.max_queue)
        self.members = [ClusterMember(index, weight, self._lighten) for index, weight in enumerate(weights)]
        self.router = router.build(self.members, seed=seed)
        for member in self.members:
            self.router.leave(member)
        self._dismiss = dismiss
        self._ending = asyncio.Lock()
        self._numbers = numbers()
        self._policy: dict[str, Any] | None = None
        self._swapping = asyncio.Lock()
        self._changed = asyncio.Condition()
        self._watching: set[asyncio.Task[None]] = set()
        self._refusal: str | None = None
        self._ended = asyncio.Event()

    # --- replicas that come and go ---

    def member_limits(self) -> Limits:
        """Return what each replica takes on: as much as comes, since the cluster has its own bound.

        None of them counts as unhealthy while it hangs: one that is left out does not come back before it dies.
        """
        return replace(self._limits, max_queue=sys.maxsize, stall_timeout_s=inf)

    async def join(self, index: int, client: ProcessClient) -> None:
        """Take in the engine of replica ``index``, which serves under the policy that rules from now on.

        Raises
        ------
        UnservableError, EngineDownError
            If it cannot.
        """
        async with self._swapping:
            if self._refusal is not None:
                await client.close()
                return
            if self._policy is not None and client.ready.policy != self._policy:
                await client.swap(self._policy)
            self._policy = client.ready.policy
            member = self.members[index]
            client.on_end = lambda: self._end_one(member)
            member.fill(client)
            self.router.join(member)
        task = asyncio.create_task(self._follow(member, client))
        self._watching.add(task)
        task.add_done_callback(self._watching.discard)
        async with self._changed:
            self._changed.notify_all()

    async def all_up(self) -> None:
        """Return once every replica is up."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self.router) == len(self.members))

    async def _follow(self, member: ClusterMember, client: ProcessClient) -> None:
        why = await client.ended()
        self._leave(member, client)
        if why is not None:
            log.warning("replica %d is down; %d of %d are up", member.index, len(self.router), len(self.members))

    def _leave(self, member: ClusterMember, client: ProcessClient) -> None:
        if member.client is client:
            self.router.leave(member)
            member.empty()

    def _lighten(self, member: ClusterMember) -> None:
        if self.router.watches_kv and member.client is not None:
            self.router.lighten(member)

    def _end_one(self, member: ClusterMember) -> None:
        self._admission.note_end()
        if member.client is not None:
            self.router.lighten(member)

    @property
    def replicas(self) -> Sequence[ClusterMember]:
        """Each of them, for who wants to watch them one by one."""
        return self.members

    # --- for the server ---

    @property
    def ready(self) -> Ready:
        """What a replica said when its model was loaded, with the policy that rules now; the least KV of any."""
        said = [member.ready for member in self.members]
        policy = said[0].policy if self._policy is None else self._policy
        return replace(said[0], policy=policy, kv_blocks=min(each.kv_blocks for each in said))

    @property
    def unhealthy(self) -> str | None:
        """Why no replica can serve; None while one can. Draining counts."""
        return self._refusal or (None if len(self.router) else "no replica is up")

    @property
    def requests(self) -> int:
        """Requests that have been taken on and have not ended."""
        return sum(member.requests for member in self.members)

    def submit(self, prompt_token_ids: list[int], params: SamplingParams, *, count: int = 1) -> list[Stream]:
        """Take a request ``count`` times, all or none; see :class:`engine.server.client.EngineClient`.

        All of them go to one replica, where they share the KV of their prompt.
        """
        self._check_health()
        up = [member for member in self.members if member.client is not None]
        self._admission.check(
            self.requests, count, residents=sum(int(member.ready.policy["max_num_seqs"]) for member in up)
        )
        prompt, arrival_s = list(prompt_token_ids), perf_counter()
        routed = self._sequence(prompt, arrival_s)
        client = self._choose(routed)

        def sent(own: SamplingParams, client: ProcessClient) -> Stream:
            return client.submit(prompt, own, arrival_s=arrival_s)[0]

        return [
            ClusterStream(sent(own, client), lambda own=own: sent(own, self._choose(routed)))  # type: ignore[misc]
            for own in each_output(params, count)
        ]

    def _sequence(self, prompt: list[int], arrival_s: float) -> Routed:
        """Return a request as routers see it."""
        hashes = block_hashes(prompt, self.ready.block_size) if self.router.reads_prompts else ()
        number = next(self._numbers)
        return Routed(number, arrival_s=arrival_s, prompt_tokens=len(prompt), output_tokens=1, block_hashes=hashes)

    def _choose(self, routed: Routed) -> ProcessClient:
        """Return the engine that gets a request; EngineDownError if none is up."""
        while self._refusal is None and len(self.router):
            member = self.router.choose(routed, perf_counter())
            client = member.client
            assert client is not None, "the router knows no replica that is down"
            if client.unhealthy is None:
                return client
            self._leave(member, client)
        raise EngineDownError(self.unhealthy or STOPPED)

    async def swap(self, policy: dict[str, Any]) -> dict[str, Any]:
        """Put another policy in charge of every replica, or of none; see :class:`engine.server.client.EngineClient`.

        A replica that dies meanwhile comes back under the policy that rules then.
        """
        self._check_health()
        async with self._swapping:
            up = [member.client for member in self.members if member.client is not None]
            answers = await asyncio.gather(*(client.swap(policy) for client in up), return_exceptions=True)
            refusal = next((each for each in answers if isinstance(each, UnservableError)), None)
            agreed = [(client, each) for client, each in zip(up, answers, strict=True) if isinstance(each, dict)]
            if refusal is not None:
                await asyncio.gather(*(self._take_back(client) for client, _ in agreed))
                raise refusal
            if not agreed:
                raise EngineDownError(self.unhealthy or STOPPED)
            self._policy = agreed[0][1]
            return self._policy

    async def _take_back(self, client: ProcessClient) -> None:
        """Put the ruling policy in charge again, where another replica refused the new one."""
        assert self._policy is not None, "a replica is up"
        try:
            await client.swap(self._policy)
        except UnservableError as error:
            log.error("a replica cannot go back to the policy before, and is ended: %s", error)
            await client.close()
        except EngineDownError:
            pass

    def watch(self, on_step: OnStep, on_idle: OnIdle | None = None, on_failed: OnFailed | None = None) -> None:
        """Call ``on_step`` after every iteration of any replica, with the load of all (see :meth:`load`)."""

        def idle(told: Idle) -> None:
            if on_idle is not None:
                on_idle(replace(told, load=self.load()))

        def step(told: Step) -> None:
            on_step(replace(told, load=self.load()))

        for member in self.members:
            member.watch(step, idle, on_failed)

    def load(self) -> Load:
        """Return the requests of all replicas, and the KV blocks that one of them uses on average."""
        loads = [member.load for member in self.members]
        share = sum(load.blocks_used for load in loads) / sum(member.kv_blocks for member in self.members)
        return Load(
            waiting=sum(load.waiting for load in loads),
            running=sum(load.running for load in loads),
            blocks_used=round(share * self.ready.kv_blocks),
        )

    # --- its end ---

    async def ended(self) -> str | None:
        """Return None once all replicas have been told to end, and have: one that is lost comes back."""
        await self._ended.wait()
        return None

    async def drain(self, timeout_s: float | None = None) -> None:
        """Take nothing on any more, finish what is there, and end all engines; drop the rest after ``timeout_s``."""
        self._refuse("the server is draining")
        await self._end([client.drain(timeout_s) for client in self._clients()])

    async def close(self) -> None:
        """Drop what is there, and end all engines."""
        self._refuse(STOPPED)
        await self._end([client.close() for client in self._clients()])

    def _clients(self) -> list[ProcessClient]:
        return [member.client for member in self.members if member.client is not None]

    async def _end(self, endings: Sequence[Coroutine[Any, Any, None]]) -> None:
        await asyncio.gather(*endings)
        await asyncio.gather(*self._watching)
        async with self._ending:
            if self._dismiss is not None and not self._ended.is_set():
                await self._dismiss()
            self._ended.set()

    def _refuse(self, why: str) -> None:
        self._refusal = self._refusal or why

    def _check_health(self) -> None:
        if self.unhealthy is not None:
            raise EngineDownError(self.unhealthy)
