"""A cluster in simulated time: who gets which request, KV on its way, replicas that fail and come back."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy.typing as npt

from policies.batch import Completion
from policies.catalog import PolicyChoice
from policies.routing.router import Router
from policies.sequence import Sequence, by_arrival
from simulator.clock import Clock, Order
from simulator.cluster import Cluster, Group
from simulator.failures import Outage
from simulator.flight import Flight
from simulator.host import Host
from simulator.replica import Replica
from simulator.service_rate import weights
from simulator.transfer import Sender
from traces.errors import InputError
from traces.workload import Workload

OnIteration = Callable[[Flight, Completion], None]
MOST_RESTARTS = 1000
"""A request that was on so many failing replicas will never end."""


class Dispatcher:
    """Runs a cluster: sends each request to the replica that its router chooses.

    A disaggregated cluster has two routers: one over the prefill replicas for requests, one over the decode replicas
    for their KV. A request whose replica fails goes through the first one again, in order of arrival; while no replica
    is up, requests wait here.

    Parameters
    ----------
    clock
        The simulation.
    cluster, choice, workload, seed
        What runs, under which policy, on what, from which random draws.
    columns
        Of the run record's requests; ``replica``, ``decode_replica``, ``transfer_s``, ``restarts`` are set here.
    on_iteration
        Called with each completed flight and what came out of it.
    ahead_s
        See :class:`simulator.replica.Replica`.

    Attributes
    ----------
    hosts
        The replicas, by number.
    failures
        What ``run.json`` says of them.
    """

    def __init__(
        self,
        clock: Clock,
        cluster: Cluster,
        choice: PolicyChoice,
        workload: Workload,
        columns: Mapping[str, npt.NDArray[Any]],
        on_iteration: OnIteration,
        *,
        seed: int = 0,
        ahead_s: Callable[[], float] | None = None,
    ) -> None:
        self.clock, self.columns, self.failures = clock, columns, list[dict[str, Any]]()
        self._unfinished = len(workload)
        self._stranded: list[Sequence] = []
        self._alone = cluster.replicas == 1 and not cluster.failures
        self.hosts: list[Host] = []
        self._on_iteration = on_iteration
        for group, weight in zip(cluster.groups, weights(cluster, choice, workload), strict=True):
            self._add_hosts(group, choice, weight, ahead_s)
        entries = [host for host in self.hosts if host.group.role != "decode"]
        self._entry = cluster.router.build(entries, seed=seed)
        decoders = [host for host in self.hosts if host.group.role == "decode"]
        self._decode = cluster.router.build(decoders, seed=seed + 1)
        self._senders: dict[int, Sender] = {}
        if cluster.link is not None:
            for host in entries:
                self._senders[host.index] = Sender(clock, cluster.link, host, self._decode, self._receive)
        for host in self.hosts:
            router = self._router_of(host)
            if router.watches_kv and not self._alone:
                host.replica.watch(partial(router.lighten, host))
        for host, outages in zip(self.hosts, cluster.failures.outages(len(self.hosts), seed), strict=True):
            self._await_outage(host, outages)

    def _add_hosts(
        self, group: Group, choice: PolicyChoice, weight: float, ahead_s: Callable[[], float] | None
    ) -> None:
        on_iteration = self._on_iteration if self._alone else self._complete
        for _ in range(group.count):
            number = len(self.hosts)
            policy = group.policy(choice)
            replica = Replica(self.clock, policy, group.cost_model, on_iteration, index=number, ahead_s=ahead_s)
            self.hosts.append(Host(replica, group, weight))

    @property
    def entrance(self) -> Callable[[Sequence], None]:
        """What takes requests as they arrive; where there is nothing to decide, the only replica itself."""
        return self.hosts[0].replica.submit if self._alone else self.route

    @property
    def settled_s(self) -> float:
        """Up to when all iterations have been reported: none that is still to come ends before."""
        return min(self.clock.now, min(host.replica.settled_s for host in self.hosts))

    # --- a request's way ---

    def route(self, sequence: Sequence) -> None:
        """Send a request that arrives now, or comes back from a failed replica, on its way."""
        if not len(self._entry):
            insort(self._stranded, sequence, key=by_arrival)
            return
        host = self._entry.choose(sequence, self.clock.now)
        if sequence.scheduled_s != sequence.scheduled_s:
            self.columns["replica"][sequence.request_id] = host.index
        host.replica.submit(sequence)

    def _complete(self, flight: Flight, done: Completion) -> None:
        self._on_iteration(flight, done)
        number = flight.replica
        host = self.hosts[number]
        if done.finished:
            for sequence in done.finished:
                self.columns["decode_replica"][sequence.request_id] = number
            self._unfinished -= len(done.finished)
            self._router_of(host).lighten(host)
        sender = self._senders.get(number)
        if sender is not None:
            for chunk in flight.batch.chunks:
                if not chunk.sequence.left and chunk.sequence.generated < chunk.sequence.output_tokens:
                    sender.send(chunk.sequence)

    def _receive(self, sequence: Sequence, source: Host, host: Host) -> None:
        self.columns["transfer_s"][sequence.request_id] += self.clock.now - sequence.last_token_s
        self._entry.lighten(source)
        host.replica.submit(sequence)

    def _router_of(self, host: Host) -> Router[Host]:
        return self._decode if host.group.role == "decode" else self._entry

    # --- failures ---

    def _await_outage(self, host: Host, outages: Iterator[Outage]) -> None:
        outage = next(outages, None)
        if outage is not None:
            self.clock.at(outage.failed_s, partial(self._fail, host, outage, outages), Order.FAILURE, host.index)

    def _fail(self, host: Host, outage: Outage, outages: Iterator[Outage]) -> None:
        if not self._unfinished:
            return
        self._router_of(host).leave(host)
        sequences, tokens = host.replica.fail()
        failure = {
            "replica": host.index,
            "failed_s": self.clock.now,
            "recovered_s": None,
            "requests": len(sequences),
            "tokens": tokens,
        }
        self.failures.append(failure)
        self.clock.at(outage.recovered_s, partial(self._recover, host, failure, outages), Order.RECOVERY, host.index)
        self._break_off(host)
        for sequence in sequences:
            self._restart(sequence)

    def _break_off(self, host: Host) -> None:
        """Transfers from a failed replica come to nothing, those to it begin anew."""
        if host.index in self._senders:
            self._senders[host.index].clear()
        for sender in self._senders.values():
            sender.drop(to=host)
            sender.look_up()

    def _restart(self, sequence: Sequence) -> None:
        restarts = self.columns["restarts"]
        restarts[sequence.request_id] += 1
        if restarts[sequence.request_id] > MOST_RESTARTS:
            what = f"request {sequence.request_id + 1} was on {MOST_RESTARTS} replicas that failed, and has not ended"
            raise InputError(what, where="failures", expected="replicas that stay up longer than a request takes")
        self.route(sequence)

    def _recover(self, host: Host, failure: dict[str, Any], outages: Iterator[Outage]) -> None:
        if not self._unfinished:
            return
        failure["recovered_s"] = self.clock.now
        self._router_of(host).join(host)
        self._await_outage(host, outages)
        stranded, self._stranded = self._stranded, []
        for sequence in stranded:
            self.route(sequence)
        for sender in self._senders.values():
            sender.look_up()
