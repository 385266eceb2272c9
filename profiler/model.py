"""Models: what of a decoder-only transformer decides its cost, from a Hugging Face ``config.json``."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from os import PathLike, fspath
from pathlib import Path
from typing import NamedTuple

from traces.errors import InputError
from traces.files import read_json

PRESETS = "presets/models"
QK_NORM = "qk_layernorm"
DTYPE_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}


class Linear(NamedTuple):
    """A matrix product [tokens, k] x [k, n] on one GPU."""

    kind: str
    n: int
    k: int


class Elementwise(NamedTuple):
    """An op that reads and writes ``size_bytes`` a token; its output has ``elements`` a token."""

    kind: str
    elements: int
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class Model:
    """A decoder-only transformer.

    Attributes
    ----------
    name, family
        The preset or folder; ``model_type`` of the config.
    layers, hidden, heads, kv_heads, head_dim, intermediate, vocab, max_position
        Sizes, as elements or tokens.
    gated
        Whether the MLP has a gate beside its up projection.
    tied_embeddings
        Whether the head's weights are those of the embedding.
    parallel_attention
        Whether attention and MLP read the same input and are added up (Falcon): one all-reduce a layer.
    dtype
        Of weights, activations and KV cache.
    sliding_window
        Tokens that every layer attends to at most; None where any layer attends to all.
    qkv_bias, output_bias, mlp_bias, qk_norm, norm, norms
        Biases; whether queries and keys are normalised; ``rms`` or ``layer``; norms a layer.
    learned_positions
        Rows of a table of position embeddings; 0 for none.
    fused
        Whether the engine computes query, key and value in one product, and gate and up in one.
    """

    name: str
    family: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    max_position: int
    gated: bool = True
    tied_embeddings: bool = False
    parallel_attention: bool = False
    dtype: str = "bfloat16"
    sliding_window: int | None = None
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    norm: str = "rms"
    norms: int = 2
    learned_positions: int = 0
    fused: bool = True

    @property
    def dtype_bytes(self) -> int:
        """Bytes of one element."""
        return DTYPE_BYTES[self.dtype]

    @property
    def norm_parameters(self) -> int:
        """Parameters of one norm over the hidden state."""
        return self.hidden * (1 if self.norm == "rms" else 2)

    @property
    def embedding_parameters(self) -> int:
        """Parameters of the token and position embeddings."""
        return (self.vocab + self.learned_positions) * self.hidden

    @property
    def layer_parameters(self) -> int:
        """Parameters of one layer."""
        return self._layer_parameters(1)

    @property
    def head_parameters(self) -> int:
        """Parameters of the last norm and of the head, 0 for a head that is tied to the embedding."""
        return self.norm_parameters + (0 if self.tied_embeddings else self.vocab * self.hidden)

    def parameters(self) -> int:
        """Return the parameters of the whole model."""
        return self.embedding_parameters + self.layers * self.layer_parameters + self.head_parameters

    def check_parallel(self, tp: int, pp: int = 1) -> None:
        """Refuse degrees of parallelism that this model cannot be split by.

        Raises
        ------
        InputError
            If ``tp`` does not divide the query heads or the MLP, or does not fit the KV heads (of which
            each GPU holds its share, or a copy where there are fewer than GPUs), or there are fewer layers
            than stages.
        """
        for count, what in ((self.heads, "query heads"), (self.intermediate, "MLP columns")):
            if tp < 1 or count % tp:
                raise InputError(
                    f"{tp} does not divide the {count} {what} of {self.name}", where="--tensor-parallel-size"
                )
        if max(tp, self.kv_heads) % min(tp, self.kv_heads):
            what = f"{self.kv_heads} KV heads of {self.name} can neither be split nor copied over {tp} GPUs"
            raise InputError(what, where="--tensor-parallel-size")
        if not 1 <= pp <= self.layers:
            wish = f"1 to {self.layers}, the layers of {self.name}"
            raise InputError(f"{pp} stages", where="--pipeline-parallel-size", expected=wish)

    def layers_on(self, pp: int, stage: int) -> int:
        """Return how many layers a stage runs; the last one, which has the head, gets no extra layer."""
        self.check_parallel(1, pp)
        extra = self.layers % pp
        return self.layers // pp + (pp - 1 - extra <= stage < pp - 1)

    def heads_on(self, tp: int) -> tuple[int, int]:
        """Return the query heads and KV heads on each of ``tp`` GPUs."""
        self.check_parallel(tp)
        return self.heads // tp, max(1, self.kv_heads // tp)

    def weight_bytes(self, tp: int = 1, pp: int = 1, stage: int = 0) -> int:
        """Return bytes of weights on each GPU of a stage: layers split over ``tp``, norms copied.

        A head tied to the embedding is stored again where it is on another stage.
        """
        self.check_parallel(tp, pp)
        count = self.layers_on(pp, stage) * self._layer_parameters(tp)
        rows = -(-self.vocab // tp)
        if stage == 0:
            count += (rows + self.learned_positions) * self.hidden
        if stage == pp - 1:
            count += self.norm_parameters
            count += 0 if self.tied_embeddings and pp == 1 else rows * self.hidden
        return count * self.dtype_bytes

    def kv_bytes_per_token(self, tp: int = 1, pp: int = 1, stage: int = 0) -> int:
        """Return bytes of KV cache that one token takes on each GPU of a stage."""
        _, kv_heads = self.heads_on(tp)
        return 2 * kv_heads * self.head_dim * self.layers_on(pp, stage) * self.dtype_bytes

    def linears(self, tp: int = 1) -> tuple[Linear, ...]:
        """Return the matrix products of one layer on each of ``tp`` GPUs."""
        heads, kv_heads = self.heads_on(tp)
        wide = self.intermediate // tp
        queries, written = heads * self.head_dim, kv_heads * self.head_dim
        inputs = [("q_proj", queries), ("k_proj", written), ("v_proj", written)]
        ups = [("gate_proj", wide), ("up_proj", wide)] if self.gated else [("up_proj", wide)]
        if self.fused:
            inputs = [("qkv_proj", queries + 2 * written)]
            ups = [("gate_up_proj", 2 * wide)] if self.gated else ups
        return (
            *(Linear(kind, n, self.hidden) for kind, n in inputs),
            Linear("o_proj", self.hidden, queries),
            *(Linear(kind, n, self.hidden) for kind, n in ups),
            Linear("down_proj", self.hidden, wide),
        )

    def head_linear(self, tp: int = 1) -> Linear:
        """Return the head's matrix product on each of ``tp`` GPUs; it runs for tokens that are sampled."""
        return Linear("lm_head", -(-self.vocab // tp), self.hidden)

    def elementwise(self, tp: int = 1) -> tuple[Elementwise, ...]:
        """Return the other ops of one layer but attention, on each of ``tp`` GPUs."""
        heads, kv_heads = self.heads_on(tp)
        size, wide = self.dtype_bytes, self.intermediate // tp
        rotated, written = (heads + kv_heads) * self.head_dim, 2 * kv_heads * self.head_dim
        names = ("input_layernorm", "post_attention_layernorm", "extra_layernorm", "extra_layernorm")
        ops = [Elementwise(name, self.hidden, 2 * self.hidden * size) for name in names[: self.norms]]
        ops += [Elementwise("add", self.hidden, 3 * self.hidden * size)] * 2
        if self.qk_norm:
            ops.append(Elementwise(QK_NORM, rotated, 2 * rotated * size))
        if not self.learned_positions:
            ops.append(Elementwise("rope", rotated, 2 * rotated * size))
        ops.append(Elementwise("act", wide, (3 if self.gated else 2) * wide * size))
        return (*ops, Elementwise("kv_cache_save", written, 2 * written * size))

    def all_reduces(self, tp: int = 1) -> tuple[str, ...]:
        """Return after which ops of a layer the hidden states of all tokens are summed over the GPUs.

        Each moves ``hidden * dtype_bytes`` a token. The embedding, split by rows, needs one more a batch.
        """
        if tp == 1:
            return ()
        return ("down_proj",) if self.parallel_attention else ("o_proj", "down_proj")

    @property
    def hidden_bytes(self) -> int:
        """Bytes of one token's hidden state: what an all-reduce or a hand-off between stages moves."""
        return self.hidden * self.dtype_bytes

    def _layer_parameters(self, tp: int) -> int:
        heads, kv_heads = self.heads_on(tp)
        count = sum(linear.n * linear.k for linear in self.linears(tp))
        count += self.norms * self.norm_parameters + 2 * self.head_dim * self.qk_norm
        count += (heads + 2 * kv_heads) * self.head_dim * self.qkv_bias + self.hidden * self.output_bias
        wide = self.intermediate // tp * (2 if self.gated else 1)
        return count + (wide + self.hidden) * self.mlp_bias


def model_names() -> list[str]:
    """Return the names of the presets."""
    return sorted(entry.name.removesuffix(".json") for entry in files("profiler").joinpath(PRESETS).iterdir())


def model_path(name_or_path: str | PathLike[str]) -> Path:
    """Return the ``config.json`` of a preset, a folder or a file.

    Raises
    ------
    InputError
        If there is none.
    """
    text = fspath(name_or_path)
    if text in model_names():
        return Path(str(files("profiler").joinpath(PRESETS, f"{text}.json")))
    path = Path(text)
    if path.is_dir():
        path /= "config.json"
    if path.is_file():
        return path
    wish = f"one of {', '.join(model_names())}, or a Hugging Face config.json"
    raise InputError(f"unknown model {text!r}", expected=wish)


def load_model(name_or_path: str | PathLike[str]) -> Model:
    """Return the model of a preset, or of a Hugging Face ``config.json`` or a folder that holds one.

    Raises
    ------
    InputError
        If there is no such file, or it describes a model that is no plain decoder-only transformer.
    """
    from profiler.model_config import read_config

    path = model_path(name_or_path)
    name = path.stem if path.stem != "config" else path.resolve().parent.name
    return read_config(read_json(path), name=name, where=path)
