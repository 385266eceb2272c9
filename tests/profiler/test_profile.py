"""Profile folders: written whole, read back the same, and refused when a value cannot be."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from profiler.device import load_device
from profiler.lint import Roofline
from profiler.profile import COLUMNS, Meta, Profile, ops_table, profile_folder, read_profile, write_profile
from profiler.profile_check import device_of
from traces.errors import InputError

META = {"device": "a100-sxm", "device_name": "an A100", "dtype": "bfloat16", "timed_by": "hand", "source": "a test"}


def table(time_s: list[float]) -> pa.Table:
    rows = len(time_s)
    sizes = {"m": [1024 + row for row in range(rows)], "n": 4096, "k": 4096}
    shape = {"op": "gemm", "kind": "q_proj", "dtype": "bfloat16", **sizes}
    return ops_table(rows, time_s=time_s, spread_s=0.0, count=3, **shape)


def profile(*time_s: float, **meta: Any) -> Profile:
    return Profile(asdict(Meta(**(META | meta))), table(list(time_s or (1e-3, 2e-3))))


def rewritten(folder: Path, change: Callable[[pa.Table], pa.Table]) -> Path:
    path = folder / "ops.parquet"
    pq.write_table(change(pq.read_table(path)), path)
    return folder


def with_column(rows: pa.Table, name: str, values: Any) -> pa.Table:
    position = rows.schema.get_field_index(name)
    return rows.set_column(position, name, values)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    written = profile(1e-3, 2e-3, versions={"torch": "2.13"}, refused={"gemm: hot in L2": 4})
    write_profile(tmp_path / "p", written)
    read = read_profile(tmp_path / "p")
    assert read.table.equals(written.table)
    assert read.meta == {**written.meta, "rows": 2}
    assert sorted(path.name for path in (tmp_path / "p").iterdir()) == ["ops.parquet", "profile.json"]


def test_the_same_profile_is_the_same_bytes(tmp_path: Path) -> None:
    for name in "ab":
        write_profile(tmp_path / name, profile())
    for file in ("profile.json", "ops.parquet"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_a_column_that_is_not_given_holds_nothing() -> None:
    row = ops_table(1, op="gemm", m=1024, time_s=[1.0]).to_pylist()[0]
    assert list(row) == list(COLUMNS)
    assert (row["kind"], row["heads"], row["size_bytes"], row["m"]) == ("", 0, 0, 1024)
    assert math.isnan(row["spread_s"])
    with pytest.raises(TypeError, match="no such column: tokens"):
        ops_table(1, op="gemm", time_s=1.0, tokens=3)


def test_another_folder_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="exists and is something else"), profile_folder(tmp_path):
        pytest.fail("the block must not run")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_nothing_is_left_of_a_measurement_that_was_interrupted(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), profile_folder(tmp_path / "p") as write:
        write(profile())
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_rows_that_beat_the_roofline_are_counted_and_named(tmp_path: Path) -> None:
    write_profile(tmp_path / "p", profile(1e-3, 1e-6, 1e-9, 0.0))
    with pytest.raises(InputError) as error:
        read_profile(tmp_path / "p")
    assert str(error.value) == (
        f"{tmp_path}/p/ops.parquet: 3 of 4 rows beat the roofline of a100-sxm (1 gemm: a time of zero, "
        "2 gemm: faster than the peak rate); expected times that the device can reach"
    )
    assert read_profile(tmp_path / "p", check=False).table.num_rows == 4


def test_a_device_that_is_no_preset_is_held_to_the_ceilings_it_states(tmp_path: Path) -> None:
    ceilings = asdict(Roofline.of(load_device("a100-sxm")))
    write_profile(tmp_path / "fast", profile(1e-3, device="mine", ceilings=ceilings))
    assert read_profile(tmp_path / "fast").table.num_rows == 1
    write_profile(tmp_path / "slow", profile(1e-3, device="mine", ceilings=ceilings | {"peak_flops": 1e12}))
    with pytest.raises(InputError, match="1 of 1 rows beat the roofline of mine"):
        read_profile(tmp_path / "slow")


def test_a_measured_cpu_has_the_rates_that_were_measured() -> None:
    ceilings = {"peak_flops": 1e12, "memory_bandwidth_bytes_per_s": 1e11, "measured_copy_bytes_per_s": 9e10}
    device = device_of(profile(device="cpu", ceilings=ceilings))
    assert (device.peak_flops, device.memory_bandwidth_bytes_per_s) == (1e12, 1e11)
    assert device_of(profile(ceilings=ceilings)) == load_device("a100-sxm")


BAD_TABLES: dict[str, tuple[Callable[[pa.Table], pa.Table], str]] = {
    "missing column": (lambda rows: rows.drop_columns("time_s"), "column 'time_s' is missing"),
    "other type": (
        lambda rows: with_column(rows, "m", pa.array([1.5, 2.5])),
        "column 'm': is double; expected int64",
    ),
    "negative size": (
        lambda rows: with_column(rows, "k", pa.array([64, -64])),
        "row 2, column 'k': value is -64; expected an integer >= 0",
    ),
    "negative time": (
        lambda rows: with_column(rows, "time_s", pa.array([-1.0, 1.0])),
        "row 1, column 'time_s': value is -1.0; expected a time >= 0 in seconds",
    ),
    "not a number": (
        lambda rows: with_column(rows, "time_s", pa.array([1.0, np.nan])),
        "row 2, column 'time_s': value is nan",
    ),
    "null": (
        lambda rows: with_column(rows, "time_s", pa.array([1.0, None])),
        "row 2, column 'time_s': value is null",
    ),
    "unknown op": (
        lambda rows: with_column(rows, "op", pa.array(["gemm", "convolution"])),
        "row 2, column 'op': value is convolution; expected one of gemm, ",
    ),
    "rows lost": (lambda rows: rows.slice(0, 1), "1 rows; expected 2, as in profile.json"),
}


@pytest.mark.parametrize("case", BAD_TABLES)
def test_a_table_with_a_wrong_value_is_refused(tmp_path: Path, case: str) -> None:
    change, message = BAD_TABLES[case]
    write_profile(tmp_path / "p", profile())
    with pytest.raises(InputError) as error:
        read_profile(rewritten(tmp_path / "p", change))
    assert message in str(error.value)
    assert str(error.value).startswith(f"{tmp_path}/p/ops.parquet")


def test_a_truncated_table_is_refused(tmp_path: Path) -> None:
    write_profile(tmp_path / "p", profile())
    path = tmp_path / "p/ops.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"ops.parquet: cannot read: .*; expected a parquet file"):
        read_profile(tmp_path / "p")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gpu": "A100"}, "unknown key 'gpu'"),
        ({"schema_version": 2}, "schema_version is 2; this version reads 1"),
        ({"device": 5}, "key 'device' is 5; expected str"),
    ],
)
def test_wrong_keys_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    write_profile(tmp_path / "p", profile())
    path = tmp_path / "p/profile.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=message):
        read_profile(tmp_path / "p")


def test_a_folder_that_is_no_profile_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such folder; expected a profile: profile.json and ops.parquet"):
        read_profile(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"profile.json: cannot read"):
        read_profile(tmp_path)
