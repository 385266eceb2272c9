"""Keys and values into the paged cache in Triton: one launch for both."""

# mypy: allow-untyped-decorators, allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls
import torch
import triton
import triton.language as tl

from engine.attention.triton_plan import power_of_two


def write_kv(
    key: torch.Tensor, value: torch.Tensor, key_pool: torch.Tensor, value_pool: torch.Tensor, slots: torch.Tensor
) -> None:
    """Put keys and values of a batch's tokens where ``slots`` says.

    Parameters
    ----------
    key, value
        [tokens, kv_heads, head_dim] of the pools' dtype, contiguous in the last dimension.
    key_pool, value_pool
        [blocks, block_size, kv_heads, head_dim], contiguous.
    slots
        int64 [tokens]: block x block_size + place in it.

    Raises
    ------
    ValueError
        If shapes, dtypes or layouts do not fit together.
    """
    tokens, kv_heads, head_dim = key.shape
    if value.shape != key.shape or slots.shape != (tokens,) or key_pool.shape[2:] != key.shape[1:]:
        raise ValueError("key and value must be [tokens, kv_heads, head_dim] like the pools, with a slot a token")
    if key_pool.shape != value_pool.shape or not (key_pool.is_contiguous() and value_pool.is_contiguous()):
        raise ValueError("both pools must be contiguous [blocks, block_size, kv_heads, head_dim]")
    if {key.dtype, value.dtype, value_pool.dtype} != {key_pool.dtype} or slots.dtype != torch.int64:
        raise ValueError("key, value and pools must share one dtype, and slots be int64")
    if head_dim > 1 and (key.stride(-1) != 1 or value.stride(-1) != 1):
        raise ValueError("key and value must be contiguous in their last dimension")
    if not tokens:
        return
    strides = (*key.stride()[:2], *value.stride()[:2])
    sizes = {"kv_heads": kv_heads, "head_dim": head_dim, "block": power_of_two(kv_heads * head_dim)}
    with torch.cuda.device_of(key):
        _write[(tokens,)](key, value, key_pool, value_pool, slots, *strides, **sizes)


@triton.jit(do_not_specialize_on_alignment=["slots"])
def _write(
    key,
    value,
    key_pool,
    value_pool,
    slots,
    key_token_stride,
    key_head_stride,
    value_token_stride,
    value_head_stride,
    kv_heads: tl.constexpr,
    head_dim: tl.constexpr,
    block: tl.constexpr,
):
    """All heads of one token. Grid: tokens."""
    token = tl.program_id(0).to(tl.int64)
    slot = tl.load(slots + token)
    place = tl.arange(0, block)
    head = place // head_dim
    dim = place % head_dim
    live = place < kv_heads * head_dim
    at = slot * kv_heads * head_dim + place
    keys = tl.load(key + token * key_token_stride + head * key_head_stride + dim, mask=live)
    tl.store(key_pool + at, keys, mask=live)
    values = tl.load(value + token * value_token_stride + head * value_head_stride + dim, mask=live)
    tl.store(value_pool + at, values, mask=live)
