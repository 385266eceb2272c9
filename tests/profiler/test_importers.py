"""Other people's tables: units, shapes, what is refused, and what a broken file is answered with."""

from __future__ import annotations

import gzip
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from profiler.importers import import_tables
from profiler.model import load_model
from profiler.profile import Profile, read_profile, write_profile
from traces.errors import InputError

GEMM = {
    "framework": "VLLM",
    "version": "0.14.0",
    "device": "NVIDIA A100-SXM4-80GB",
    "op_name": "gemm",
    "kernel_source": "cublas",
    "gemm_dtype": "bfloat16",
    "m": 512,
    "n": 4096,
    "k": 4096,
    "latency": 0.1,
}
NCCL = {
    "op_name": "all_reduce",
    "kernel_source": "NCCL",
    "nccl_dtype": "half",
    "num_gpus": 4,
    "message_size": 2**20,
    "latency": 0.05,
}


def parquet(path: Path, *rows: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows)), path)
    return path


def csv(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = ("\n".join(lines) + "\n").encode()
    path.write_bytes(gzip.compress(data) if path.name.endswith(".gz") else data)
    return path


def rows(profile: Profile, **wanted: Any) -> list[dict[str, Any]]:
    return [row for row in profile.table.to_pylist() if all(row[name] == value for name, value in wanted.items())]


def ops(profile: Profile) -> dict[str, int]:
    return dict(Counter(profile.table["op"].to_pylist()))


def test_aiconfigurator_counts_in_milliseconds_and_messages_in_elements(tmp_path: Path) -> None:
    folder = tmp_path / "a100_sxm"
    parquet(folder / "gemm/vllm/0.14.0/gemm_perf.parquet", GEMM, GEMM | {"gemm_dtype": "fp8"})
    parquet(folder / "comm/nccl/2.27.3/nccl_perf.parquet", NCCL, NCCL | {"op_name": "all_gather"})
    profile = import_tables(folder)
    (gemm,) = rows(profile, op="gemm")
    assert (gemm["m"], gemm["n"], gemm["k"]) == (512, 4096, 4096)
    assert gemm["time_s"] == pytest.approx(1e-4)
    (reduce,) = rows(profile, op="all_reduce")
    assert (reduce["gpus"], reduce["size_bytes"], reduce["kind"]) == (4, 2**21, "nccl")
    assert profile.meta["device"] == "a100-sxm"
    assert profile.meta["device_name"] == "NVIDIA A100-SXM4-80GB"
    assert profile.meta["refused"] == {"all_gather: not an op of tensor parallelism": 1, "gemm dtype fp8": 1}
    assert profile.meta["versions"] == {"vllm": "0.14.0", "nccl": "2.27.3"}


def test_the_newest_version_counts_and_reuse_points_back(tmp_path: Path) -> None:
    folder = tmp_path / "a100_sxm/gemm/vllm"
    for version, latency in (("0.9.0", 0.3), ("0.14.0", 0.1)):
        parquet(folder / version / "gemm_perf.parquet", GEMM | {"latency": latency})
    assert rows(import_tables(tmp_path))[0]["time_s"] == pytest.approx(1e-4)
    (folder / "0.22.0").mkdir()
    reuse = folder / "0.22.0/reuse.yaml"
    reuse.write_text("reuse:\n- table: gemm_perf\n  from_version: 0.9.0\n")
    profile = import_tables(tmp_path)
    assert rows(profile)[0]["time_s"] == pytest.approx(3e-4)
    assert profile.meta["refused"] == {"gemm_perf 0.14.0: superseded by version 0.9.0": 1}
    reuse.write_text("reuse:\n- table: gemm_perf\n  from_version: 0.11.0\n")
    with pytest.raises(InputError, match=r"0.11.0/gemm_perf.parquet: reuse.yaml points to it, and it is not there"):
        import_tables(tmp_path)


def test_a_generated_token_attends_to_prompt_and_step(tmp_path: Path) -> None:
    row = {
        "op_name": "generation_attention",
        "kernel_source": "flash",
        "attn_dtype": "bfloat16",
        "kv_cache_dtype": "bfloat16",
        "batch_size": 8,
        "isl": 1,
        "step": 1023,
        "num_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "latency": 0.1,
        "window_size": 0,
    }
    others = (row | {"kv_cache_dtype": "fp8"}, row | {"window_size": 128}, row | {"latency": 0.001})
    path = parquet(tmp_path / "h100_sxm/generation_attention_perf.parquet", row, *others)
    profile = import_tables(path)
    (decode,) = rows(profile)
    assert (decode["op"], decode["query_tokens"], decode["past_tokens"]) == ("decode_attention", 1, 1023)
    assert profile.meta["refused"] == {
        "decode_attention: KV cache dtype fp8": 1,
        "decode_attention: sliding window": 1,
        "decode_attention: hot in L2": 1,
    }


LAYERS = ("layer_name,input,kv_cache,tp_size,latency(ns)", "k_proj,64,0,2,20000", "input_layernorm,64,0,2,16000")
V0 = "A6000/Llama-3.1-8B/tp2"


def test_the_first_llmservingsim_names_layers_and_counts_in_nanoseconds(tmp_path: Path) -> None:
    profile = import_tables(csv(tmp_path / V0 / "layers.csv.gz", *LAYERS, "attn,64,0,2,5000"))
    (product,), (norm,) = rows(profile, op="gemm"), rows(profile, op="elementwise")
    assert (product["kind"], product["m"], product["n"], product["k"]) == ("k_proj", 64, 512, 4096)
    assert product["time_s"] == pytest.approx(2e-5)
    assert (norm["kind"], norm["size_bytes"]) == ("input_layernorm", 64 * 2 * 4096 * 2)
    assert (profile.meta["device"], profile.meta["model"]) == ("a6000", "llama-3.1-8b")
    assert profile.meta["refused"] == {"attn: its contexts are not recorded": 1}


def test_its_kv_cache_size_counts_the_chunk_itself(tmp_path: Path) -> None:
    stats = ",".join(f"time_stats.attn_{op}.{name}" for op in ("prefill", "decode") for name in ("median", "std"))
    sizes = "n_embd,n_q_head,n_kv_head,num_tensor_parallel_workers,batch_size,prefill_chunk_size,kv_cache_size"
    header = f"{stats},{sizes},is_prefill,attention_backend"
    good = ("0.2,0.01,,,4096,32,8,2,1,512,1536,True,FLASH", ",,0.3,0.02,4096,32,8,2,4,0,1000,False,FLASH")
    profile = import_tables(csv(tmp_path / V0 / "attention.csv", header, *good))
    (prefill,), (decode,) = rows(profile, op="prefill_attention"), rows(profile, op="decode_attention")
    assert (prefill["query_tokens"], prefill["past_tokens"], prefill["heads"], prefill["kv_heads"]) == (
        512,
        1024,
        16,
        4,
    )
    assert (decode["sequences"], decode["query_tokens"], decode["past_tokens"]) == (4, 1, 999)
    assert (prefill["time_s"], decode["spread_s"]) == pytest.approx((2e-4, 2e-5))
    short = csv(tmp_path / V0 / "attention.csv", header, "0.2,0.01,,,4096,32,8,2,1,512,256,True,FLASH")
    with pytest.raises(InputError, match=r"attention.csv:2, column 'kv_cache_size': value is 256; expected at least"):
        import_tables(short)


SIM = "RTX4090/Llama-3.1-8B/bf16/tp1"


def test_llmservingsim_measures_mixed_batches_and_counts_in_microseconds(tmp_path: Path) -> None:
    header = "prefill_chunk,kv_prefill,n_decode,kv_decode,time_us"
    lines = ("0,0,8,4096,200", "128,1024,0,0,90.5", "256,512,4,2048,300")
    profile = import_tables(csv(tmp_path / SIM / "attention.csv", header, *lines))
    (decode,), (prefill,), (mixed,) = (rows(profile, op=f"{op}_attention") for op in ("decode", "prefill", "mixed"))
    assert (decode["sequences"], decode["past_tokens"], decode["decodes"]) == (8, 4095, 0)
    assert (prefill["query_tokens"], prefill["past_tokens"]) == (128, 1024)
    assert prefill["time_s"] == pytest.approx(9.05e-5)
    assert (mixed["query_tokens"], mixed["past_tokens"], mixed["decodes"], mixed["decode_context"]) == (
        256,
        512,
        4,
        2048,
    )


def test_tables_of_another_model_are_refused(tmp_path: Path) -> None:
    path = csv(tmp_path / SIM / "dense.csv", "layer,tokens,time_us", "qkv_proj,64,80")
    (tmp_path / SIM).parent.joinpath("meta.yaml").write_text(
        "tp_degrees: [1, 2]\nengine_effective:\n  hf_overrides:\n    num_attention_heads: 40\n"
    )
    with pytest.raises(
        InputError, match=r"was measured with num_attention_heads 40; expected the share of llama-3.1-8b"
    ):
        import_tables(path)


def test_layers_without_sizes_need_a_model(tmp_path: Path) -> None:
    path = csv(tmp_path / "RTX4090/dense.csv", "layer,tokens,time_us", "qkv_proj,64,150")
    with pytest.raises(InputError, match=r"whose layers these are is not known; expected .* or --model"):
        import_tables(path)
    (row,) = rows(import_tables(path, model="llama-2-7b"))
    assert (row["n"], row["k"]) == (3 * 4096, 4096)


def mlp_lines(*times: float, tokens: int = 64) -> tuple[str, ...]:
    names = ["emb", "input_layernorm", "attn_pre_proj", "attn_rope", "attn_post_proj", "post_attention_layernorm"]
    names += ["mlp_up_proj", "mlp_act", "mlp_down_proj", "add"]
    stats = [f"time_stats.{name}.{statistic}" for name in names for statistic in ("median", "std")]
    sizes = "n_head,n_kv_head,n_embd,n_expanded_embd,vocab_size,use_gated_mlp,num_tokens,num_tensor_parallel_workers"
    lines = [f"{','.join(f'{time},0.001' for _ in names)},32,8,4096,14336,128256,True,{tokens},2" for time in times]
    return (f"{','.join(stats)},{sizes}", *lines)


def test_vidur_fuses_gate_and_up_and_its_duplicates_that_agree_become_their_median(tmp_path: Path) -> None:
    profile = import_tables(csv(tmp_path / "compute/a40/mlp.csv.gz", *mlp_lines(0.2, 0.6, 0.24)))
    (up,) = rows(profile, kind="gate_up_proj")
    assert (up["op"], up["m"], up["n"], up["k"]) == ("gemm", 64, 14336, 4096)
    assert (up["time_s"], up["spread_s"]) == pytest.approx((0.22e-3, 1e-6))
    assert ops(profile) == {"elementwise": 6, "gemm": 4}
    assert profile.meta["refused"] == {
        "elementwise: far from most rows of its shape": 6,
        "elementwise: same shape as another row": 6,
        "gemm: far from most rows of its shape": 4,
        "gemm: same shape as another row": 4,
    }


def test_vidur_collectives_between_nodes_are_left_out(tmp_path: Path) -> None:
    header = "time_stats.all_reduce.median,time_stats.all_reduce.std,rank,num_workers,size,collective,devices_per_node"
    lines = ("0.05,0.001,0,4,65536,all_reduce,4", "0.06,0.001,1,4,65536,all_reduce,4", "2,0.1,0,4,65536,all_reduce,1")
    profile = import_tables(csv(tmp_path / "network/a100_dgx/all_reduce.csv", header, *lines))
    (row,) = rows(profile)
    assert (row["op"], row["gpus"], row["size_bytes"]) == ("all_reduce", 4, 65536)
    assert row["time_s"] == pytest.approx(5.5e-5)
    assert profile.meta["refused"]["all_reduce between nodes: a property of the cluster, not of the device"] == 1


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ((LAYERS[0], "k_proj,64,0,2,fast"), "layers.csv:2, column 'latency(ns)': value is fast; expected a number"),
        ((*LAYERS, "k_proj,8,0,2,"), "layers.csv:4, column 'latency(ns)': value is empty; expected a number"),
        ((*LAYERS, "k_proj,8,0,2,-5"), "layers.csv:4, column 'latency(ns)': value is -5; expected a time >= 0 in ns"),
        ((*LAYERS, "k_proj,8,0,2,nan"), "layers.csv:4, column 'latency(ns)': value is nan; expected a finite number"),
        ((*LAYERS, "k_proj,8.5,0,2,9"), "layers.csv:4, column 'input': value is 8.5; expected an integer >= 1"),
        ((*LAYERS, "k_proj,0,0,2,9"), "layers.csv:4, column 'input': value is 0; expected an integer >= 1"),
        ((*LAYERS, "conv,8,0,2,9000"), "layers.csv:4, column 'layer_name': unknown layer conv; expected embedding, "),
        ((*LAYERS, "k_proj,8,0"), "layers.csv: cannot read: CSV parse error: Expected 5 columns, got 3"),
        ((LAYERS[0],), "layers.csv: has no rows"),
        (("layer_name,input,kv_cache,latency(ns)", "k_proj,64,0,9"), "layers.csv: column 'tp_size' is missing"),
        (("a,b", "1,2"), "layers.csv: is no known table; expected columns of one of aiconfigurator, "),
        (("a,a", "1,2"), "layers.csv:1: two columns have the same name"),
        ((LAYERS[0], "k_proj,64,0,2,1"), "all 1 rows beat the roofline of a6000 (1 gemm: faster than the peak rate)"),
        ((LAYERS[0], "attn,64,0,2,9"), "holds no row that a profile has a place for"),
    ],
)
def test_a_broken_table_is_answered_in_one_line_with_the_place(
    tmp_path: Path, lines: tuple[str, ...], message: str
) -> None:
    path = csv(tmp_path / V0 / "layers.csv", *lines)
    with pytest.raises(InputError) as error:
        import_tables(path)
    assert message in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_truncated_files_are_refused(tmp_path: Path) -> None:
    path = csv(tmp_path / V0 / "layers.csv.gz", *LAYERS)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(InputError, match=r"layers.csv.gz: broken gzip: .*; expected a whole gzip file"):
        import_tables(path)
    path.write_bytes(b"not gzip")
    with pytest.raises(InputError, match=r"layers.csv.gz: broken gzip"):
        import_tables(path)
    table = parquet(tmp_path / "a100_sxm/gemm_perf.parquet", GEMM)
    table.write_bytes(table.read_bytes()[:-10])
    with pytest.raises(InputError, match=r"gemm_perf.parquet: cannot read: .*; expected a whole parquet file"):
        import_tables(table)


def test_the_device_must_be_known_and_one(tmp_path: Path) -> None:
    path = csv(tmp_path / "Llama-3.1-8B/layers.csv", *LAYERS)
    with pytest.raises(InputError, match=r"whose times these are is not known; expected --device, one of a100-pcie"):
        import_tables(path)
    assert import_tables(path, "a40").meta["device"] == "a40"
    for name in ("a40", "a100"):
        csv(tmp_path / f"compute/{name}/mlp.csv", *mlp_lines(0.2))
    with pytest.raises(InputError, match=r"holds tables of a100-sxm, a40; expected the folder of one device"):
        import_tables(tmp_path / "compute")
    assert import_tables(tmp_path / "compute", "a40").meta["device"] == "a40"
    with pytest.raises(InputError, match=r"holds no table of h100; expected one of a100-sxm, a40"):
        import_tables(tmp_path / "compute", "h100")
    with pytest.raises(InputError, match=r"unknown device 'a4000'"):
        import_tables(tmp_path / "compute", "a4000")


def test_two_families_do_not_mix_and_a_stranger_is_counted(tmp_path: Path) -> None:
    csv(tmp_path / V0 / "layers.csv", *LAYERS)
    csv(tmp_path / V0 / "notes.csv", "a,b", "1,2", "3,4")
    assert import_tables(tmp_path / "A6000").meta["refused"] == {"notes.csv: no known table": 2}
    csv(tmp_path / "A6000/mlp.csv", *mlp_lines(0.2))
    with pytest.raises(InputError, match=r"holds tables of llmservingsim_v0, vidur; expected"):
        import_tables(tmp_path / "A6000")


@pytest.mark.parametrize("name", ["nowhere", "empty", "text.txt"])
def test_a_path_without_tables_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").write_text("hello")
    with pytest.raises(InputError, match=f"{name}: (no such file or folder|holds no table|is no table)"):
        import_tables(tmp_path / name)


FOLDERS = {
    "aiconfigurator/a100_sxm": {"gemm": 9240, "prefill_attention": 5049, "decode_attention": 5431, "all_reduce": 132},
    "aiconfigurator/h100_sxm": {
        "gemm": 35712,
        "prefill_attention": 13736,
        "decode_attention": 16929,
        "all_reduce": 132,
    },
    "llmservingsim_v0/A6000": {
        "gemm": 32768,
        "elementwise": 16384,
        "prefill_attention": 432,
        "decode_attention": 3693,
    },
    "llmservingsim/RTX4090": {
        "gemm": 648,
        "elementwise": 800,
        "prefill_attention": 96,
        "decode_attention": 98,
        "mixed_attention": 8448,
    },
    "llmservingsim/RTXPRO6000": {
        "gemm": 1296,
        "elementwise": 1144,
        "prefill_attention": 466,
        "decode_attention": 342,
        "mixed_attention": 37920,
    },
    "vidur/compute/a40": {"gemm": 8288, "elementwise": 6216},
}


@pytest.mark.parametrize("folder", FOLDERS)
def test_published_tables_become_profiles_that_pass_their_own_check(data: Path, tmp_path: Path, folder: str) -> None:
    profile = import_tables(data / "profiles" / folder)
    assert ops(profile) == FOLDERS[folder]
    write_profile(tmp_path / "p", profile)
    read = read_profile(tmp_path / "p").table
    assert read.drop_columns("spread_s").equals(profile.table.drop_columns("spread_s"))
    assert np.array_equal(read["spread_s"], profile.table["spread_s"], equal_nan=True)


def test_most_of_the_published_decode_attention_of_the_a6000_is_impossible(data: Path) -> None:
    profile = import_tables(data / "profiles/llmservingsim_v0/A6000")
    refused = sum(
        count
        for reason, count in profile.meta["refused"].items()
        if reason.startswith("decode_attention") and "same shape" not in reason
    )
    assert 0.58 <= refused / (refused + len(rows(profile, op="decode_attention"))) <= 0.90


def test_a_gpu_of_two_has_about_half_the_time_of_one(data: Path) -> None:
    """The shapes of a degree of parallelism are the right ones: the rate per GPU hardly depends on it."""
    profile = import_tables(data / "profiles/llmservingsim/RTXPRO6000")
    model = load_model("llama-3.1-8b")
    rates = []
    for tp in (1, 2):
        up = next(linear for linear in model.linears(tp) if linear.kind == "gate_up_proj")
        (row,) = rows(profile, kind="gate_up_proj", m=2048, n=up.n)
        rates.append(2 * 2048 * up.n * up.k / row["time_s"])
    assert np.ptp(rates) / rates[0] < 0.1
