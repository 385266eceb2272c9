"""End to end: requests of one length, as many as there are seats at once, and none that has to wait for its arrival."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from policies.blocks import KVMemory
from policies.catalog import PolicyChoice, choose
from profiler.cost_model import CostModel
from simulator.cluster import Cluster
from simulator.simulation import Scenario, simulate_in_memory
from traces.workload import Workload

ROUNDS = 2
"""How many times all seats are filled while the throughput of a policy is taken. With the paper's policies
requests that are all alike come and go in the same order each time: more rounds give the same figure."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """Requests that are all alike (SARATHI, section 5.1).

    Attributes
    ----------
    length
        Prompt and output tokens of a request together.
    output_tokens
        Of them, those that are generated.
    seats
        Requests whose KV cache fits at once, each of ``length`` tokens: the batch size.
    """

    length: int
    output_tokens: int
    seats: int

    @staticmethod
    def at(ratio: float, *, length: int, seats: int) -> Load:
        """Return the load with so many prompt tokens an output token, as nearly as whole tokens allow."""
        return Load(length=length, output_tokens=max(1, round(length / (1 + ratio))), seats=seats)

    @staticmethod
    def balanced(chunk: int, *, length: int, seats: int) -> Load:
        """Return the load whose prompts have as many chunks as their decodes need iterations (section 5.1.3).

        A chunk leaves room for the ``seats`` - 1 decodes beside it, and the first token of an output comes with the
        last chunk. Where the chunk divides the length all batches are then full.
        """
        return Load(length=length, output_tokens=1 + (seats - 1) * -(-length // chunk), seats=seats)

    @property
    def prompt_tokens(self) -> int:
        """Tokens of a prompt."""
        return self.length - self.output_tokens

    @property
    def ratio(self) -> float:
        """Prompt tokens an output token: the paper's P:D."""
        return self.prompt_tokens / self.output_tokens

    def workload(self, requests: int) -> Workload:
        """Return so many of them, all there from the beginning."""
        return Workload(
            name=f"{self.prompt_tokens} + {self.output_tokens} tokens",
            arrival_s=np.zeros(requests),
            prompt_tokens=np.full(requests, self.prompt_tokens),
            output_tokens=np.full(requests, self.output_tokens),
        )


def baseline(load: Load) -> PolicyChoice:
    """Return FasterTransformer's batches: all prompts, then decodes alone until the last of them ends."""
    return choose("faster-transformer", max_num_seqs=load.seats)


def sarathi(load: Load, chunk: int, tile: int = 128) -> PolicyChoice:
    """Return SARATHI with batches of ``chunk`` tokens."""
    return choose("sarathi", max_num_seqs=load.seats, chunk_size=chunk, tile_size=tile)


def orca_best(load: Load) -> PolicyChoice:
    """Return Orca where requests come one after the other, so that each whole prompt runs beside all other decodes.

    This is SARATHI with chunks as long as the longest request (section 5.2). All prompts are whole: beside a prompt
    there are no more decodes than a request has.
    """
    return sarathi(load, load.length, tile=1)


def orca_worst(load: Load) -> PolicyChoice:
    """Return Orca where all requests begin and end together: its own rule, with all of them there at once."""
    return choose("orca", max_num_seqs=load.seats)


def tokens_per_s(costs: CostModel, load: Load, choice: PolicyChoice, rounds: int = ROUNDS) -> float:
    """Return prompt and output tokens a second while all seats are taken.

    Time is taken from the end of the first ``seats`` requests to the end of the last ``seats`` before no request
    waits any more: what it takes to fill and to empty the seats does not count, as it would not in a longer run.
    """
    requests = load.seats * (rounds + 2)
    memory = KVMemory(blocks=load.seats * -(-load.length // 16), max_model_len=load.length)
    cluster = Cluster.single(costs.deployment, costs, memory)
    run = simulate_in_memory(Scenario(workload=load.workload(requests), cluster=cluster), choice)
    ends_s = np.sort(run.requests.finished_s)
    first, last = load.seats - 1, requests - load.seats - 1
    return load.length * (last - first) / float(ends_s[last] - ends_s[first])


def gain(costs: CostModel, load: Load, choice: PolicyChoice, rounds: int = ROUNDS) -> float:
    """Return a policy's throughput, while seats are filled ``rounds`` times, over that of the baseline."""
    return tokens_per_s(costs, load, choice, rounds) / tokens_per_s(costs, load, baseline(load))
