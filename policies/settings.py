"""What every policy can be told."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of a policy; each policy adds its own.

    Attributes
    ----------
    max_num_seqs
        Most sequences resident at once. With pipeline parallelism each micro-batch holds at most its share,
        max_num_seqs / stages.
    """

    max_num_seqs: int = 128

    def __post_init__(self) -> None:
        self._at_least("max_num_seqs", 1)

    def most_tokens(self, max_model_len: int) -> int:
        """Return the tokens of the largest batch to make room for: here, one whole prompt.

        Orca and FasterTransformer put no limit on the prompts of a batch; what several at once would need is
        not counted.
        """
        return max(max_model_len, self.max_num_seqs)

    def _at_least(self, name: str, least: int) -> None:
        value = getattr(self, name)
        if value is not None and value < least:
            raise ValueError(f"{name} is {value}; expected an integer >= {least}")


@dataclass(frozen=True, kw_only=True)
class PagedSettings(Settings):
    """Settings of the policies that take KV blocks as a sequence grows.

    Attributes
    ----------
    watermark
        Share of all blocks that must stay free when a request is admitted.
    """

    watermark: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.watermark < 1:
            raise ValueError(f"watermark is {self.watermark}; expected a number in [0, 1)")
