"""Models and tokenizers from local files; nothing is fetched, and no code or pickle of a model is run."""

from __future__ import annotations

from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from engine.attention import ATTENTION, register
from engine.shortage import first_line, memory_for
from engine.text import Tokenizer
from profiler.model import DTYPE_BYTES, model_path
from traces.errors import InputError
from traces.files import read_json

LOAD_FORMATS = ("safetensors", "dummy")
MOST_NAMED = 3
CAUSAL_LM: Any = AutoModelForCausalLM


def load_model(
    name_or_path: str | PathLike[str],
    *,
    load_format: str = "safetensors",
    dtype: str | None = None,
    device: str = "cpu",
    seed: int = 0,
) -> Any:
    """Return a causal language model of transformers that attends through :mod:`engine.attention`.

    Parameters
    ----------
    name_or_path
        A folder with ``config.json`` and safetensors weights; for ``dummy`` also a ``config.json`` or the
        name of a preset.
    load_format
        ``safetensors``, or ``dummy`` for random weights drawn with ``seed``.
    dtype
        ``float32``, ``bfloat16`` or ``float16``; None for what the config says.
    device
        ``cpu``, ``cuda`` or ``cuda:1``.

    Raises
    ------
    InputError
        If there is no such model, transformers does not know it, a weight is missing, too many or of another
        shape, or the device is not there.
    """
    if load_format not in LOAD_FORMATS:
        what, wish = f"unknown load format {load_format!r}", f"one of {', '.join(LOAD_FORMATS)}"
        raise InputError(what, where="--load-format", expected=wish)
    check_device(device)
    path = model_path(name_or_path)
    config = _config(path)
    number_type = _dtype(dtype, config, path)
    register()
    with memory_for("the model's weights", expected="a smaller model, or a device with more memory"):
        if load_format == "dummy":
            model = _random(config, number_type, device, seed)
        else:
            model = _stored(path, config, number_type).to(device)
    return model.eval().requires_grad_(False)


def load_tokenizer(name_or_path: str | PathLike[str]) -> Tokenizer:
    """Return the tokenizer in a model's folder; InputError if there is none, or no such model."""
    model_path(name_or_path)
    folder = Path(name_or_path)
    wish = "a folder with tokenizer.json, or token ids (--prompt-tokens, --tokens)"
    if not folder.is_dir():
        raise InputError("no tokenizer", where=folder, expected=wish)
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError, AttributeError) as error:
        raise InputError("no tokenizer that can be read", where=folder, expected=wish) from error
    loaded: Tokenizer = tokenizer
    return loaded


def stop_ids(model: Any) -> frozenset[int]:
    """Return the tokens that end an output, as the model's folder says."""
    for config in (model.generation_config, model.config):
        ids = getattr(config, "eos_token_id", None)
        if ids is not None:
            return frozenset(ids if isinstance(ids, list) else [ids])
    return frozenset()


def check_device(device: str) -> None:
    """Refuse a device that is not there: InputError unless it is ``cpu``, ``cuda`` or ``cuda:1``."""
    kind, colon, index = device.partition(":")
    if kind not in ("cpu", "cuda") or (colon and (kind == "cpu" or not index.isdecimal())):
        raise InputError(f"unknown device {device!r}", where="--device", expected="cpu, cuda or cuda:N")
    found = torch.cuda.device_count()
    if kind == "cuda" and int(index or 0) >= found:
        what = f"PyTorch finds {found} CUDA devices, none of them {device}"
        raise InputError(what, where="--device", expected="one that is there, or cpu")


def _config(path: Path) -> Any:
    document = read_json(path)
    try:
        return AutoConfig.for_model(**document)
    except (StrictDataclassError, TypeError, ValueError, KeyError, AttributeError) as error:
        kind = document.get("model_type")
        what = f"transformers cannot read the config of model_type {kind!r}: {_first_line(error)}"
        raise InputError(what, where=path, expected="a causal language model that it knows") from error


def _dtype(asked: str | None, config: Any, path: Path) -> torch.dtype:
    name = asked or str(getattr(config, "dtype", None) or "float32").removeprefix("torch.")
    if name not in DTYPE_BYTES:
        where = path if asked is None else "--dtype"
        raise InputError(f"dtype is {name!r}", where=where, expected=f"one of {', '.join(DTYPE_BYTES)}")
    number_type: torch.dtype = getattr(torch, name)
    return number_type


def _random(config: Any, dtype: torch.dtype, device: str, seed: int) -> Any:
    with torch.random.fork_rng(), torch.device(device):
        torch.manual_seed(seed)
        try:
            return CAUSAL_LM.from_config(config, dtype=dtype, attn_implementation=ATTENTION, trust_remote_code=False)
        except (KeyError, ValueError) as error:
            raise _unfit(error, str(config.model_type)) from error


def _stored(path: Path, config: Any, dtype: torch.dtype) -> Any:
    folder = path.parent
    try:
        model, found = CAUSAL_LM.from_pretrained(
            str(folder),
            config=config,
            dtype=dtype,
            attn_implementation=ATTENTION,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except OSError as error:
        raise InputError(
            "no safetensors weights", where=folder, expected="model.safetensors (or --load-format dummy)"
        ) from error
    except SafetensorError as error:
        raise InputError(f"not whole safetensors: {error}", where=folder) from error
    except (KeyError, ValueError) as error:
        raise _unfit(error, folder) from error
    _check_weights(found, folder)
    return model


def _unfit(error: Exception, where: str | Path) -> InputError:
    what = f"transformers cannot build it with paged attention: {_first_line(error)}"
    return InputError(what, where=where, expected="a causal language model with the attention interface")


def _check_weights(found: dict[str, Any], folder: Path) -> None:
    """Refuse weights that do not go with the config, naming the first few."""
    wrong = [f"{name} is {_shape(stored)}, not {_shape(built)}" for name, stored, built in found["mismatched_keys"]]
    for words, names in (
        ("weights of another shape", wrong),
        ("weights missing", found["missing_keys"]),
        ("weights that the config has no place for", found["unexpected_keys"]),
    ):
        if names:
            raise InputError(f"{len(names)} {words}: {_some(names)}", where=folder, expected="those of config.json")


def _shape(shape: Iterable[int]) -> str:
    return " x ".join(map(str, shape))


def _some(names: Iterable[str]) -> str:
    listed = sorted(names)
    return ", ".join(listed[:MOST_NAMED]) + (", ..." if len(listed) > MOST_NAMED else "")


def _first_line(error: Exception) -> str:
    return first_line(error.__cause__ or error if isinstance(error, StrictDataclassError) else error)
