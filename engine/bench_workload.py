"""What ``bench`` serves: random requests of given lengths, the mix that small engines share, or a trace."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np

from traces.errors import InputError
from traces.source import open_workload
from traces.workload import IntColumn, Workload

DATASETS = ("random", "nano-vllm")
SHARED_REQUESTS, SHARED_SHORTEST, SHARED_LONGEST, SHARED_LAST_TOKEN = 256, 100, 1024, 10000
RANDOM_REQUESTS = 1000


@dataclass(frozen=True, kw_only=True)
class BenchWorkload:
    """Which requests a person asked for; each field is the option of that name.

    Attributes
    ----------
    dataset
        ``random``, or ``nano-vllm``: 256 requests with prompts and outputs uniform in 100..1024, the
        very lengths of the script of nano-vllm and mini-sglang.
    workload
        A trace or preset instead of a dataset; its arrival times do not count.
    num_prompts
        How many requests; None for 1000, for 256, or for all of a trace.
    input_len, output_len, range_ratio
        Of ``random``: lengths are uniform in length x (1 ± range_ratio).
    length_scale
        What lengths are multiplied with in the end, for a model of short contexts.
    """

    dataset: str = "random"
    workload: str | None = None
    num_prompts: int | None = None
    input_len: int = 1024
    output_len: int = 128
    range_ratio: float = 0.0
    length_scale: float = 1.0

    def __post_init__(self) -> None:
        if self.dataset not in DATASETS:
            what = f"unknown dataset {self.dataset!r}"
            raise InputError(what, where="--dataset-name", expected=f"one of {', '.join(DATASETS)}")
        for option in ("num_prompts", "input_len", "output_len"):
            value = getattr(self, option)
            if value is not None and value < 1:
                raise InputError(f"is {value}", where=f"--{option.replace('_', '-')}", expected="an integer >= 1")
        if self.workload is None and self.dataset == "nano-vllm" and (self.num_prompts or 0) > SHARED_REQUESTS:
            wish = f"at most {SHARED_REQUESTS}, all that nano-vllm has"
            raise InputError(f"is {self.num_prompts}", where="--num-prompts", expected=wish)
        if self.workload is not None:
            self._refuse_options_of_datasets()
        if not 0 <= self.range_ratio < 1:
            raise InputError(f"is {self.range_ratio}", where="--random-range-ratio", expected="a number in [0, 1)")

    def _refuse_options_of_datasets(self) -> None:
        """A trace brings its own lengths."""
        named = {"dataset": "dataset-name", "input_len": "input-len", "output_len": "output-len"}
        for field, option in (named | {"range_ratio": "random-range-ratio"}).items():
            if getattr(self, field) != getattr(BenchWorkload, field):
                raise InputError("does not go with --workload", where=f"--{option}", expected="one of them")

    def open(self, seed: int) -> Workload:
        """Return the requests, all of them there at time 0; the same ones for the same seed.

        ``nano-vllm`` has the same lengths for every seed.

        Raises
        ------
        InputError
            If there is no such trace or preset, or it cannot be read.
        """
        if self.workload is not None:
            lengths = open_workload(self.workload, num_prompts=self.num_prompts, seed=seed)
            count = len(lengths)
            whole = Workload(
                name=lengths.name,
                arrival_s=np.zeros(count),
                prompt_tokens=lengths.prompt_tokens,
                output_tokens=lengths.output_tokens,
                hash_ids=lengths.hash_ids,
                timed=False,
            )
        elif self.dataset == "nano-vllm":
            whole = self._shared()
        else:
            whole = self._random(seed)
        return whole.shortened(self.length_scale)

    def _shared(self) -> Workload:
        """Draw the script's own lengths: between the prompts' lengths it draws their tokens, by the same generator."""
        draw = random.Random(0).randint
        prompts = []
        for _ in range(SHARED_REQUESTS):
            prompts.append(draw(SHARED_SHORTEST, SHARED_LONGEST))
            for _ in range(prompts[-1]):
                draw(0, SHARED_LAST_TOKEN)
        outputs = [draw(SHARED_SHORTEST, SHARED_LONGEST) for _ in range(SHARED_REQUESTS)]
        lengths = (np.array(column[: self.num_prompts], dtype=np.int64) for column in (prompts, outputs))
        return _at_once("nano-vllm", *lengths)

    def _random(self, seed: int) -> Workload:
        count, rng = self.num_prompts or RANDOM_REQUESTS, np.random.default_rng(seed)
        prompts, outputs = (self._around(length, count, rng) for length in (self.input_len, self.output_len))
        return _at_once(f"random {self.input_len}/{self.output_len}", prompts, outputs)

    def _around(self, length: int, count: int, rng: np.random.Generator) -> IntColumn:
        shortest = max(1, int(length * (1 - self.range_ratio)))
        longest = int(np.ceil(length * (1 + self.range_ratio)))
        return rng.integers(shortest, longest, size=count, dtype=np.int64, endpoint=True)


def _at_once(name: str, prompt_tokens: IntColumn, output_tokens: IntColumn) -> Workload:
    return Workload(
        name=name,
        arrival_s=np.zeros(len(prompt_tokens)),
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        timed=False,
    )
