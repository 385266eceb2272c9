"""How output tokens are chosen: settings of a request, and the choice itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch

from traces.errors import InputError

SEEDS = 2**63
"""A seed is an integer from 0 to below this."""


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How the output of a request is sampled, and where it ends. Names and meanings are vLLM's.

    Attributes
    ----------
    temperature
        What logits are divided by; 0 takes the likeliest token, always.
    top_k
        Only so many of the likeliest tokens; 0 or -1 for all.
    min_p
        Only tokens at least so likely as this times the likeliest.
    top_p
        Of what ``top_k`` and ``min_p`` leave, the fewest likeliest tokens that make up this share.
    seed
        Decides the draws of this request, whatever it is batched with; None for one that the engine gives.
    stop
        Strings at which the output ends; they are not part of the text.
    stop_token_ids
        Tokens at which the output ends, besides those of the model.
    ignore_eos
        Whether to go on at the model's own end token.
    max_tokens
        Longest output; None for what the context has room for.
    min_tokens
        Nothing ends the output before so many tokens.
    logprobs
        Also give the log probability of each token, and of so many of the likeliest; None for none.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    max_tokens: int | None = 16
    min_tokens: int = 0
    logprobs: int | None = None

    def __post_init__(self) -> None:
        longest = self.max_tokens
        for name, right, expected in (
            ("temperature", 0 <= self.temperature < float("inf"), "a number >= 0"),
            ("top_k", self.top_k >= -1, "an integer >= 1, or 0 for all tokens"),
            ("top_p", 0 < self.top_p <= 1, "a number in (0, 1]"),
            ("min_p", 0 <= self.min_p <= 1, "a number in [0, 1]"),
            ("seed", self.seed is None or 0 <= self.seed < SEEDS, "an integer in [0, 2^63)"),
            ("stop", all(self.stop), "strings that are not empty"),
            ("max_tokens", longest is None or longest >= 1, "an integer >= 1"),
            ("min_tokens", 0 <= self.min_tokens <= (longest or self.min_tokens), "an integer from 0 to max_tokens"),
            ("logprobs", self.logprobs is None or self.logprobs >= 0, "an integer >= 0"),
        ):
            if not right:
                raise InputError(f"{name} is {getattr(self, name)!r}", where="sampling", expected=expected)

    @property
    def greedy(self) -> bool:
        """Whether nothing is drawn."""
        return self.temperature == 0

    @property
    def filtered(self) -> bool:
        """Whether any token is left out."""
        return self.top_k > 0 or self.top_p < 1 or self.min_p > 0


def each_output(params: SamplingParams, count: int) -> list[SamplingParams]:
    """Return the parameters of each of ``count`` outputs: no two of them draw alike."""
    if params.seed is None:
        return [params] * count
    return [replace(params, seed=(params.seed + place) % SEEDS) for place in range(count)]


class TokenLogprobs(NamedTuple):
    """Log probabilities after the tokens before, by the model's own logits: of the token, of the likeliest."""

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...]


def choose_tokens(
    logits_sv: torch.Tensor, params: Sequence[SamplingParams], generators: Sequence[torch.Generator]
) -> list[int]:
    """Return the next token of S sequences.

    Parameters
    ----------
    logits_sv
        float32 [S, vocab].
    params, generators
        One a sequence; a sequence that is not greedy takes one number from its generator, on the CPU.
    """
    chosen = _likeliest(logits_sv)
    for filtered in (False, True):
        rows = [row for row, each in enumerate(params) if not each.greedy and each.filtered == filtered]
        if rows:
            probs_rv = _probabilities(logits_sv[rows], [params[row] for row in rows])
            draws = [torch.rand((), generator=generators[row], dtype=torch.float64) for row in rows]
            u_r1 = torch.stack(draws)[:, None].to(logits_sv.device)
            drawn_r = (
                _draw_filtered(probs_rv, u_r1, [params[row] for row in rows]) if filtered else _draw(probs_rv, u_r1)
            )
            for row, token in zip(rows, drawn_r.tolist(), strict=True):
                chosen[row] = int(token)
    return chosen


def _likeliest(logits_sv: torch.Tensor) -> list[int]:
    """Return the likeliest token of S sequences; on a CPU by numpy, which is ten times as fast at it as PyTorch."""
    tokens_s = logits_sv.numpy().argmax(axis=-1) if logits_sv.device.type == "cpu" else logits_sv.argmax(dim=-1)
    return [int(token) for token in tokens_s.tolist()]


def token_logprobs(logits_v: torch.Tensor, token_id: int, count: int) -> TokenLogprobs:
    """Return the log probability of a token and of the ``count`` likeliest, of logits [vocab]."""
    logprobs_v = logits_v.log_softmax(dim=-1)
    top = logprobs_v.topk(min(count, len(logprobs_v)))
    pairs = tuple(zip(top.indices.tolist(), top.values.tolist(), strict=True))
    return TokenLogprobs(token_id, float(logprobs_v[token_id]), pairs)


def _column(values: Sequence[float], like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64, device=like.device)[:, None]


def _probabilities(logits_rv: torch.Tensor, params: Sequence[SamplingParams]) -> torch.Tensor:
    """Return probabilities, float64; the largest logit is taken off first, so that no temperature overflows."""
    temperature_r1 = _column([each.temperature for each in params], logits_rv)
    return ((logits_rv - logits_rv.amax(dim=-1, keepdim=True)).double() / temperature_r1).softmax(dim=-1)


def _draw(probs_rv: torch.Tensor, u_r1: torch.Tensor) -> torch.Tensor:
    """Return the token [R] at the share ``u_r1`` of all probability."""
    mass_rv = probs_rv.cumsum(dim=-1)
    place_r1 = torch.searchsorted(mass_rv, u_r1 * mass_rv[:, -1:], right=True)
    return place_r1[:, 0].clamp(max=probs_rv.shape[-1] - 1)


def _draw_filtered(probs_rv: torch.Tensor, u_r1: torch.Tensor, params: Sequence[SamplingParams]) -> torch.Tensor:
    """Return tokens [R] as :func:`_draw` does; in order of probability every filter keeps a beginning."""
    vocab = probs_rv.shape[-1]
    sorted_rv, order_rv = probs_rv.sort(dim=-1, descending=True, stable=True)
    mass_rv = sorted_rv.cumsum(dim=-1)
    top_k_r1 = _column([min(each.top_k, vocab) if each.top_k > 0 else vocab for each in params], probs_rv).long()
    least_r1 = _column([each.min_p for each in params], probs_rv) * sorted_rv[:, :1]
    kept_r1 = torch.minimum(top_k_r1, (sorted_rv >= least_r1).sum(dim=-1, keepdim=True))
    wanted_r1 = _column([each.top_p for each in params], probs_rv) * mass_rv.gather(1, kept_r1 - 1)
    kept_r1 = torch.minimum(kept_r1, (mass_rv < wanted_r1).sum(dim=-1, keepdim=True) + 1)
    place_r1 = torch.searchsorted(mass_rv, u_r1 * mass_rv.gather(1, kept_r1 - 1), right=True)
    return order_rv.gather(1, torch.minimum(place_r1, kept_r1 - 1))[:, 0]
