"""KV on its way from a prefill replica to decode replicas."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial

from policies.routing.router import Router
from policies.sequence import Sequence
from simulator.clock import Clock, Moment, Order
from simulator.host import Host
from simulator.link import Link


class Sender:
    """The sending side of one prefill replica: one transfer at a time, first come, first served.

    The replica keeps a sequence's seat and blocks until its KV is there. Which decode replica gets it is chosen when
    its transfer begins, and again where that one fails meanwhile: then it begins anew.

    Parameters
    ----------
    clock, link
        The simulation, and what lies between the replicas.
    host
        The prefill replica.
    router
        Over the decode replicas.
    on_arrival
        Called with a sequence whose KV has arrived, the prefill replica it is from, and the decode replica it is on.
    """

    def __init__(
        self,
        clock: Clock,
        link: Link,
        host: Host,
        router: Router[Host],
        on_arrival: Callable[[Sequence, Host, Host], None],
    ) -> None:
        self._clock, self._link, self._host, self._router = clock, link, host, router
        self._on_arrival = on_arrival
        self._queue: deque[Sequence] = deque()
        self._to: Host | None = None
        self._end: Moment | None = None

    def send(self, sequence: Sequence) -> None:
        """Take a sequence whose prompt is done."""
        self._host.replica.policy.hold(sequence)
        self._queue.append(sequence)
        self.look_up()

    def look_up(self) -> None:
        """Begin the next transfer, if the link is free and a decode replica is up."""
        if self._to is not None or not self._queue or not len(self._router):
            return
        sequence, now_s = self._queue[0], self._clock.now
        self._to = self._router.choose(sequence, now_s)
        self._to.coming += 1
        end_s = now_s + self._link.time_s(sequence.computed)
        self._end = self._clock.at(end_s, partial(self._arrive, sequence, self._to), Order.TRANSFER, self._host.index)

    def _arrive(self, sequence: Sequence, to: Host) -> None:
        self._queue.popleft()
        self._to = None
        to.coming -= 1
        self._host.replica.let_go(sequence)
        self._on_arrival(sequence, self._host, to)
        self.look_up()

    def drop(self, *, to: Host | None = None) -> None:
        """Break off the transfer under way, if there is one and it goes ``to`` that replica (None: to any)."""
        if self._to is None or (to is not None and self._to is not to):
            return
        assert self._end is not None
        self._end.call_off()
        self._to.coming -= 1
        self._router.lighten(self._to)
        self._to = None

    def clear(self) -> None:
        """Forget everything: the replica has failed, and what it held is lost."""
        self.drop()
        self._queue.clear()
