"""A good table, broken in some way: it is refused in one line, or what is left out is named; never a silent fit."""

from __future__ import annotations

import csv
import gzip
import json
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.device import load_device
from profiler.importers import import_tables, raw_file
from profiler.profile import Profile, read_profile, write_profile
from traces.errors import InputError

Rows = list[dict[str, Any]]
A100, A6000 = load_device("a100-sxm"), load_device("a6000")
TOKENS = (1, 2, 4, 8, 16, 32, 64, 65, 128, 129, 256, 512, 1024, 2048, 4096)


def product_s(m: int, n: int, k: int, peak_flops: float, bandwidth: float) -> float:
    return 5e-6 + 1.3 * max(2 * m * n * k / peak_flops, 2 * (m * k + n * k + m * n) / bandwidth)


def parquet_rows() -> Rows:
    """GEMMs as aiconfigurator publishes them, in ms."""
    rates = (A100.peak_flops, A100.memory_bandwidth_bytes_per_s)
    shapes = [(m, n, k) for m in TOKENS for n, k in ((6144, 4096), (4096, 14336), (28672, 4096))]
    fixed = {"framework": "VLLM", "version": "0.14.0", "device": "NVIDIA A100-SXM4-80GB", "op_name": "gemm"}
    fixed |= {"kernel_source": "cublas", "gemm_dtype": "bfloat16"}
    return [{**fixed, "m": m, "n": n, "k": k, "latency": 1e3 * product_s(m, n, k, *rates)} for m, n, k in shapes]


def csv_rows() -> Rows:
    """Layers of Llama-3.1-8B as LLMServingSim's first release publishes them, in ns."""
    rates = (A6000.peak_flops, A6000.memory_bandwidth_bytes_per_s)
    layers = {"q_proj": (4096, 4096), "down_proj": (4096, 14336), "up_proj": (14336, 4096)}
    return [
        {"layer_name": name, "input": m, "kv_cache": 0, "tp_size": 1, "latency(ns)": 1e9 * product_s(m, n, k, *rates)}
        for m in TOKENS
        for name, (n, k) in layers.items()
    ]


def write_parquet(rows: Rows, folder: Path) -> Path:
    path = folder / "a100_sxm/gemm/vllm/0.14.0/gemm_perf.parquet"
    path.parent.mkdir(parents=True)
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    mixed = [name for name, values in columns.items() if len({type(value) for value in values} - {type(None)}) > 1]
    texts = {name: [None if value is None else str(value) for value in columns[name]] for name in mixed}
    pq.write_table(pa.table(columns | texts), path)
    return path


def write_csv(rows: Rows, folder: Path) -> Path:
    path = folder / "A6000/Llama-3.1-8B/layers.csv"
    path.parent.mkdir(parents=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


FAMILIES: dict[str, tuple[Callable[[], Rows], Callable[[Rows, Path], Path], str, tuple[str, ...]]] = {
    "parquet": (parquet_rows, write_parquet, "latency", ("gemm_dtype", "m", "n", "k", "latency")),
    "csv": (csv_rows, write_csv, "latency(ns)", ("layer_name", "input", "tp_size", "latency(ns)")),
}
families = st.sampled_from(sorted(FAMILIES))
broken = settings(deadline=None, max_examples=25)


def imported(family: str, change: Callable[[Rows], Rows | None] = lambda rows: rows) -> Profile:
    """Import the good table of ``family`` after ``change``, which may work in place."""
    make, write, _, _ = FAMILIES[family]
    rows = make()
    rows = change(rows) or rows
    with tempfile.TemporaryDirectory() as folder:
        return import_tables(write(rows, Path(folder)))


def times(profile: Profile) -> dict[tuple[Any, ...], float]:
    return {(row["m"], row["n"], row["k"]): row["time_s"] for row in profile.table.to_pylist()}


def refused(family: str, change: Callable[[Rows], Rows | None]) -> str:
    with pytest.raises(InputError) as error:
        imported(family, change)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_good_tables_are_good(family: str) -> None:
    profile = imported(family)
    assert profile.table.num_rows == len(FAMILIES[family][0]())
    assert profile.meta["refused"] == {}


@broken
@given(family=families, data=st.data())
def test_a_missing_column_is_named_or_changes_nothing(family: str, data: st.DataObject) -> None:
    make, _, _, needed = FAMILIES[family]
    name = data.draw(st.sampled_from(sorted(make()[0])))

    def drop(rows: Rows) -> None:
        for row in rows:
            del row[name]

    if name in needed:
        assert f"column {name!r} is missing" in refused(family, drop)
    else:
        assert times(imported(family, drop)) == times(imported(family))


@broken
@given(family=families, power=st.sampled_from([-9, -6, -3, 3, 6, 9]))
def test_another_unit_is_told_by_its_name(family: str, power: int) -> None:
    _, _, column, _ = FAMILIES[family]

    def scale(rows: Rows) -> None:
        for row in rows:
            row[column] *= 10.0**power

    message = refused(family, scale)
    assert "times of gemm look like" in message
    assert f"column {column!r}" in message
    if abs(power) == 3:
        named = {("parquet", 3): "us, not ms", ("parquet", -3): "s, not ms", ("csv", -3): "us, not ns"}
        assert named.get((family, power), "ns times") in message


@broken
@given(family=families, power=st.sampled_from([-3, 3]), data=st.data())
def test_two_units_in_one_column_do_not_pass(family: str, power: int, data: st.DataObject) -> None:
    make, _, column, _ = FAMILIES[family]
    some = st.sets(st.integers(0, len(make()) - 1), min_size=1, max_size=len(make()) - 1)
    chosen = data.draw(some)

    def scale(rows: Rows) -> None:
        for row in chosen:
            rows[row][column] *= 10.0**power

    assert "look like" in refused(family, scale)


@broken
@given(family=families, factor=st.floats(1.5, 100), data=st.data())
def test_duplicates_that_disagree_are_never_averaged(family: str, factor: float, data: st.DataObject) -> None:
    make, _, column, _ = FAMILIES[family]
    chosen = data.draw(st.sets(st.integers(0, len(make()) - 1), min_size=1))

    def repeat(rows: Rows) -> Rows:
        return rows + [{**rows[row], column: factor * rows[row][column]} for row in sorted(chosen)]

    good = times(imported(family))
    if len(chosen) >= 8:
        assert f"{len(chosen)} of {len(chosen)} shapes that were measured several times" in refused(family, repeat)
        return
    profile = imported(family, repeat)
    kept = times(profile)
    assert len(kept) == len(good) - len(chosen)
    assert all(good[shape] == time_s for shape, time_s in kept.items())
    ((reason, count),) = profile.meta["refused"].items()
    assert reason == f"gemm: times of one shape disagree (up to {factor:.1f} times)"
    assert count == 2 * len(chosen)


@broken
@given(family=families, factor=st.floats(1.0, 1.2), row=st.integers(0, 44))
def test_duplicates_that_agree_become_their_median_and_a_stray_one_is_counted(
    family: str, factor: float, row: int
) -> None:
    _, _, column, _ = FAMILIES[family]

    def repeat(rows: Rows) -> Rows:
        return [*rows, *({**rows[row], column: each * rows[row][column]} for each in (factor, 5.0))]

    profile, good = imported(family, repeat), times(imported(family))
    assert profile.meta["refused"] == {"gemm: far from most rows of its shape": 1, "gemm: same shape as another row": 1}
    changed = {shape: time_s / good[shape] for shape, time_s in times(profile).items() if time_s != good[shape]}
    assert len(changed) <= 1
    assert list(changed.values()) == pytest.approx([(1 + factor) / 2] * len(changed))


@broken
@given(data=st.data())
def test_two_devices_in_one_column_are_refused_with_the_row(data: st.DataObject) -> None:
    chosen = data.draw(st.sets(st.integers(1, 44), min_size=1))

    def mix(rows: Rows) -> None:
        for row in chosen:
            rows[row]["device"] = "NVIDIA H100 80GB HBM3"

    message = refused("parquet", mix)
    assert f"gemm_perf.parquet:{min(chosen) + 1}, column 'device': value is NVIDIA H100 80GB HBM3" in message


@broken
@given(family=families, bad=st.sampled_from([None, math.nan, -1.0, math.inf, "fast"]), data=st.data())
def test_a_value_that_is_none_is_refused_with_row_and_column(family: str, bad: Any, data: st.DataObject) -> None:
    make, _, _, needed = FAMILIES[family]
    numbers = [name for name in needed if not isinstance(make()[0][name], str)]
    name, row = data.draw(st.sampled_from(numbers)), data.draw(st.integers(0, len(make()) - 1))

    def spoil(rows: Rows) -> None:
        rows[row][name] = bad

    message = refused(family, spoil)
    assert f":{row + (1 if family == 'parquet' else 2)}, column {name!r}: value is" in message
    assert "; expected " in message


@broken
@given(family=families, row=st.integers(0, 44))
def test_a_time_of_zero_is_left_out_and_counted(family: str, row: int) -> None:
    _, _, column, _ = FAMILIES[family]
    profile = imported(family, lambda rows: rows[row].update({column: 0}))
    assert profile.meta["refused"] == {"gemm: a time of zero": 1}
    assert set(times(profile)) < set(times(imported(family)))


def test_a_table_that_contradicts_its_folder_or_the_option_is_refused(tmp_path: Path) -> None:
    rows = [row | {"device": "NVIDIA H100 80GB HBM3"} for row in parquet_rows()]
    path = write_parquet(rows, tmp_path)
    with pytest.raises(InputError, match=r"gemm_perf.parquet: was measured on NVIDIA H100 80GB HBM3; expected a table"):
        import_tables(tmp_path)
    with pytest.raises(InputError, match="a table of a40, as --device says"):
        import_tables(path, "a40")
    rows = [row | {"device": "NVIDIA B999"} for row in parquet_rows()]
    write_parquet(rows, tmp_path / "other")
    with pytest.raises(InputError, match=r"was measured on NVIDIA B999; expected a table of a100-sxm"):
        import_tables(tmp_path / "other")
    assert import_tables(tmp_path / "other", "a100-sxm").meta["device_name"] == "NVIDIA B999"


def test_tables_of_a_folder_that_no_device_is_named_after_do_not_join_others(tmp_path: Path) -> None:
    write_csv(csv_rows(), tmp_path)
    write_csv(csv_rows(), tmp_path / "new")
    (tmp_path / "new/A6000").rename(tmp_path / "new/B999")
    with pytest.raises(InputError, match=r"B999/.*: whose times these are is not known, as it is of others beside it"):
        import_tables(tmp_path)


def test_an_empty_file_and_files_that_are_not_what_their_names_say(tmp_path: Path) -> None:
    path = write_csv(csv_rows(), tmp_path)
    text = path.read_bytes()
    for content, message in (
        (b"", "is empty; expected a header and rows"),
        (gzip.compress(text), "is no text; expected a CSV file"),
        (b"PAR1" + text, "is no text; expected a CSV file"),
        (text.replace(b"\n", b",1\n", 1), "cannot read: CSV parse error"),
        (text.replace(b"input,", b"input,input,", 1), "two columns have the same name"),
    ):
        path.write_bytes(content)
        with pytest.raises(InputError, match=message):
            import_tables(path)
    path.write_bytes(b"\xef\xbb\xbf" + text)
    assert import_tables(path).table.num_rows == len(csv_rows())


def test_a_table_larger_than_any_is_refused_before_it_fills_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_csv(csv_rows(), tmp_path)
    packed = path.with_name("layers.csv.gz")
    packed.write_bytes(gzip.compress(path.read_bytes()))
    table = write_parquet(parquet_rows(), tmp_path)
    monkeypatch.setattr(raw_file, "MOST_BYTES", packed.stat().st_size)
    with pytest.raises(InputError, match=r"layers.csv.gz: holds more than"):
        import_tables(packed)
    monkeypatch.setattr(raw_file, "MOST_BYTES", 100)
    for each in (path, packed, table):
        with pytest.raises(InputError, match="holds more than 100 bytes; expected a table of measured times"):
            import_tables(each)
    monkeypatch.setattr(raw_file, "MOST_BYTES", 2**20)
    monkeypatch.setattr(raw_file, "MOST_ROWS", 10)
    for each in (path, table):
        with pytest.raises(InputError, match="holds more than 10 rows; expected a table of measured times"):
            import_tables(each)


def test_gzip_in_several_members_is_read_whole(tmp_path: Path) -> None:
    path = write_csv(csv_rows(), tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    packed = path.with_name("layers.csv.gz")
    packed.write_bytes(gzip.compress(b"".join(lines[:5])) + gzip.compress(b"".join(lines[5:])))
    assert import_tables(packed).table.num_rows == len(csv_rows())


@pytest.mark.parametrize(("factor", "message"), [(1e3, "look like ms, not s"), (1e-3, "look like")])
def test_a_profile_in_another_unit_is_refused_when_it_is_read(tmp_path: Path, factor: float, message: str) -> None:
    profile = imported("parquet")
    position = profile.table.schema.get_field_index("time_s")
    scaled = pa.array(factor * profile.table["time_s"].to_numpy())
    write_profile(tmp_path / "p", Profile(profile.meta, profile.table.set_column(position, "time_s", scaled)))
    with pytest.raises(InputError, match=message):
        read_profile(tmp_path / "p")


def test_a_profile_with_two_times_for_one_shape_is_refused(tmp_path: Path) -> None:
    profile = imported("parquet")
    first = profile.table.slice(0, 1)
    slower = first.set_column(first.schema.get_field_index("time_s"), "time_s", pa.array([1e-3]))
    write_profile(tmp_path / "p", Profile(profile.meta, pa.concat_tables([profile.table, slower])))
    with pytest.raises(InputError, match=r"equal shapes differ \(2 gemm: times of one shape disagree"):
        read_profile(tmp_path / "p")


@pytest.mark.parametrize(("key", "value"), [("refused", {"gemm": "many"}), ("ceilings", {"peak_flops": "fast"})])
def test_a_header_that_holds_no_numbers_is_refused(tmp_path: Path, key: str, value: Any) -> None:
    write_profile(tmp_path / "p", imported("parquet"))
    header = tmp_path / "p/profile.json"
    header.write_text(json.dumps(json.loads(header.read_text()) | {key: value}))
    with pytest.raises(InputError, match=r"profile.json: .* expected"):
        read_profile(tmp_path / "p")


def test_one_time_that_no_kernel_takes_among_many_is_left_out_and_counted(tmp_path: Path) -> None:
    rows = [row | {"m": row["m"] + 4096 * copy} for row in parquet_rows() for copy in range(3)]
    rates = (A100.peak_flops, A100.memory_bandwidth_bytes_per_s)
    rows = [row | {"latency": 1e3 * product_s(row["m"], row["n"], row["k"], *rates)} for row in rows]
    rows[7]["latency"] = 1e30
    profile = import_tables(write_parquet(rows, tmp_path))
    assert profile.meta["refused"] == {"gemm: slower than any kernel": 1}
    assert profile.table.num_rows == len(rows) - 1
