"""How long requests are: distributions that draw prompt and output lengths, all by the generator given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from traces.columns import MAX_LENGTH
from traces.errors import InputError
from traces.workload import IntColumn

Lengths = tuple[IntColumn, IntColumn]


@dataclass(frozen=True, kw_only=True)
class FixedLengths:
    """Every request has the same lengths."""

    kind: ClassVar[str] = "fixed"
    prompt_tokens: int
    output_tokens: int

    def __post_init__(self) -> None:
        check_length("prompt_tokens", self.prompt_tokens)
        check_length("output_tokens", self.output_tokens)

    def draw(self, count: int, _rng: np.random.Generator) -> Lengths:
        """Return prompt and output tokens, int64 [count] each."""
        return np.full(count, self.prompt_tokens), np.full(count, self.output_tokens)


@dataclass(frozen=True, kw_only=True)
class UniformLengths:
    """Prompt and output lengths drawn apart, each uniform between its two bounds, both included."""

    kind: ClassVar[str] = "uniform"
    prompt_min: int
    prompt_max: int
    output_min: int
    output_max: int

    def __post_init__(self) -> None:
        check_range("prompt", self.prompt_min, self.prompt_max)
        check_range("output", self.output_min, self.output_max)

    def draw(self, count: int, rng: np.random.Generator) -> Lengths:
        """Return prompt and output tokens, int64 [count] each."""
        prompt = rng.integers(self.prompt_min, self.prompt_max, count, endpoint=True)
        return prompt, rng.integers(self.output_min, self.output_max, count, endpoint=True)


@dataclass(frozen=True, kw_only=True)
class ZipfLengths:
    """Total lengths by Zipf's law, split by a fixed ratio of prompt to output (SARATHI, section 5.3).

    A total of ``total_min + k`` tokens has a probability in proportion to ``(k + 1) ** -theta``, up to
    ``total_max``. The output is ``ceil(total / (1 + prompt_to_output))`` tokens, the prompt the rest, and at
    least one. SARATHI's: theta 0.4, totals from 1024 to 4096, prompt to output 10.
    """

    kind: ClassVar[str] = "zipf"
    theta: float = 0.4
    total_min: int = 1024
    total_max: int = 4096
    prompt_to_output: float = 10.0

    def __post_init__(self) -> None:
        check_range("total", self.total_min, self.total_max)
        if self.total_min < 2:
            raise InputError(f"total_min is {self.total_min}", expected="a prompt and an output, 2 or more")
        if self.total_max - self.total_min > 10_000_000:
            raise InputError(f"totals up to {self.total_max}", expected="at most 10000000 above total_min")
        if not 0 <= self.theta <= 10:
            raise InputError(f"theta is {self.theta}", expected="a number from 0 (uniform) to 10")
        if not 0 < self.prompt_to_output <= 1e6:
            what = f"prompt_to_output is {self.prompt_to_output}"
            raise InputError(what, expected="a number > 0, at most 1000000")

    def draw(self, count: int, rng: np.random.Generator) -> Lengths:
        """Return prompt and output tokens, int64 [count] each."""
        ranks = np.arange(1, self.total_max - self.total_min + 2)
        share = np.cumsum(ranks**-self.theta)
        total = self.total_min + np.searchsorted(share, rng.random(count) * share[-1], side="right")
        output = np.ceil(total / (1 + self.prompt_to_output)).astype(np.int64)
        output = np.minimum(output, total - 1)
        return total - output, output


@dataclass(frozen=True, kw_only=True)
class LognormalLengths:
    """Prompt and output lengths from two lognormal distributions with the medians and 90th percentiles given.

    Where ``total_max`` is set, a pair whose total exceeds it is drawn again, never cut to fit: cutting would
    pile requests up at the limit. Drawing again lowers the percentiles, so both distributions are fitted such
    that the percentiles hold for the pairs that are kept (see :mod:`traces.lognormal`). Lengths are rounded
    to the nearest integer, 1 at least.
    """

    kind: ClassVar[str] = "lognormal"
    prompt_p50: float
    prompt_p90: float
    output_p50: float
    output_p90: float
    total_max: int | None = None

    def __post_init__(self) -> None:
        check_percentiles("prompt", self.prompt_p50, self.prompt_p90)
        check_percentiles("output", self.output_p50, self.output_p90)
        if self.total_max is not None:
            check_length("total_max", self.total_max)

    def draw(self, count: int, rng: np.random.Generator) -> Lengths:
        """Return prompt and output tokens, int64 [count] each."""
        from traces.lognormal import fit

        pair = fit(self)
        limit = MAX_LENGTH if self.total_max is None else self.total_max
        prompt, output = np.empty(count, np.int64), np.empty(count, np.int64)
        left = np.arange(count)
        while len(left):
            prompt[left] = pair.prompt.draw(len(left), rng)
            output[left] = pair.output.draw(len(left), rng)
            left = left[prompt[left] + output[left] > limit]
        return prompt, output


@dataclass(frozen=True, kw_only=True)
class TraceLengths:
    """The lengths of a workload file, prompt and output kept together, in random order.

    No request is drawn twice before all have been drawn once. Prefix hashes are not drawn.
    """

    kind: ClassVar[str] = "trace"
    path: str

    def draw(self, count: int, rng: np.random.Generator) -> Lengths:
        """Return prompt and output tokens, int64 [count] each."""
        from traces.readers import read_workload

        source = read_workload(self.path, sort=True)
        rounds = -(-count // len(source))
        order = np.concatenate([rng.permutation(len(source)) for _ in range(rounds)])[:count]
        return source.prompt_tokens[order], source.output_tokens[order]


LengthSettings = FixedLengths | UniformLengths | ZipfLengths | LognormalLengths | TraceLengths


def check_length(name: str, tokens: int) -> None:
    """Raise :class:`InputError` unless ``tokens`` is a length."""
    if not 1 <= tokens <= MAX_LENGTH:
        raise InputError(f"{name} is {tokens}", expected=f"an integer from 1 to {MAX_LENGTH}")


def check_range(name: str, least: int, most: int) -> None:
    """Raise :class:`InputError` unless ``least`` and ``most`` are lengths in that order."""
    check_length(f"{name}_min", least)
    check_length(f"{name}_max", most)
    if least > most:
        raise InputError(f"{name}_min is {least}", expected=f"at most {name}_max, {most}")


def check_percentiles(name: str, p50: float, p90: float) -> None:
    """Raise :class:`InputError` unless a lognormal distribution can have these percentiles."""
    if not 1 <= p50 < p90 <= 1e8:
        what = f"{name}_p50 is {p50} and {name}_p90 is {p90}"
        raise InputError(what, expected="1 <= P50 < P90 <= 100000000, in tokens")
