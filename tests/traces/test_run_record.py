from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from traces.errors import InputError
from traces.run_record import IterationColumns, RequestColumns, RunRecorder, RunWriter, read_run, write_run
from traces.run_schema import ITERATION_TYPES, REQUEST_TYPES

FAILURE = {"replica": 1, "failed_s": 1.0, "recovered_s": 2.0, "requests": 3, "tokens": 40}
NEW_COLUMNS = ("decode_replica", "transfer_s", "restarts", "bubble_s")
FILES = ("run.json", "requests.parquet", "iterations.parquet")


def bytes_of(folder):
    return {name: (folder / name).read_bytes() for name in FILES}


def same(left, right):
    assert left.meta == right.meta
    for part, kind in (("requests", RequestColumns), ("iterations", IterationColumns)):
        for name in (field.name for field in fields(kind)):
            one, other = getattr(getattr(left, part), name), getattr(getattr(right, part), name)
            assert one.dtype == other.dtype, name
            np.testing.assert_array_equal(one, other, err_msg=name)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), replicas=st.integers(1, 3))
def test_a_record_reads_as_it_was_written(tmp_path, token_times, seed, replicas):
    run = token_times(seed, replicas).record()
    same(run, read_run(write_run(tmp_path / "run", run)))


def fill(writer, run, rows):
    for row in rows:
        writer.iteration(row)
    writer.requests({name: getattr(run.requests, name) for name in REQUEST_TYPES})
    writer.meta(run.meta.as_dict())


def rows_of(run):
    lists = {"stage_start_s", "stage_time_s", "gap_s", "gap_count"}
    plain = [name for name in ITERATION_TYPES if name not in lists]
    for index in range(len(run.iterations)):
        row = {name: getattr(run.iterations, name)[index].item() for name in plain}
        for name in ("stage_start_s", "stage_time_s"):
            row[name] = tuple(getattr(run.iterations, name)[index].tolist())
        gaps = slice(*run.iterations.gap_offsets[index : index + 2])
        pairs = zip(run.iterations.gap_s[gaps].tolist(), run.iterations.gap_count[gaps].tolist(), strict=True)
        yield (*[row[name] for name in ITERATION_TYPES if not name.startswith("gap")], list(pairs))


def test_written_as_it_happens_or_afterwards_the_bytes_are_the_same(tmp_path, token_times):
    run = token_times(4, 2).record()
    rows = list(rows_of(run))
    with RunWriter(tmp_path / "happens") as writer:
        fill(writer, run, rows)
    write_run(tmp_path / "afterwards", run)
    write_run(tmp_path / "again", read_run(tmp_path / "happens"))
    assert bytes_of(tmp_path / "happens") == bytes_of(tmp_path / "afterwards") == bytes_of(tmp_path / "again")


def test_more_iterations_than_a_row_group_holds(tmp_path, token_times):
    run = token_times(4, 1).record()
    base = list(rows_of(run))
    rows = [
        (turn * len(base) + row[0], row[1], row[2] + 10 * turn, row[3] + 10 * turn, *row[4:])
        for turn in range(int(70_000 / len(base)) + 1)
        for row in base
    ]
    assert len(rows) > 65_536
    recorder = RunRecorder()
    fill(recorder, run, rows)
    with RunWriter(tmp_path / "run") as writer:
        fill(writer, run, rows)
    same(recorder.record(), read_run(tmp_path / "run"))
    assert parquet.ParquetFile(tmp_path / "run" / "iterations.parquet").num_row_groups == 2
    write_run(tmp_path / "again", recorder.record())
    assert bytes_of(tmp_path / "run") == bytes_of(tmp_path / "again")


def test_a_crash_leaves_nothing(tmp_path, token_times):
    run = token_times(1, 1).record()

    def crash():
        with RunWriter(tmp_path / "run") as writer:
            for row in rows_of(run):
                writer.iteration(row)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        crash()
    assert list(tmp_path.iterdir()) == []


def test_a_record_without_its_requests_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="needs its requests"), RunWriter(tmp_path / "run"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_row_of_the_wrong_length_is_a_programming_error(tmp_path, token_times):
    row = next(rows_of(token_times(1, 1).record()))
    with pytest.raises(ValueError, match="argument"), RunWriter(tmp_path / "run") as writer:
        writer.iteration(row[:-2] + row[-1:])
    assert list(tmp_path.iterdir()) == []


def test_only_a_run_record_is_replaced(tmp_path, token_times):
    run = token_times(2, 1).record()
    write_run(tmp_path / "run", run)
    write_run(tmp_path / "run", run)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match=r"mine: exists and is something else"):
        write_run(tmp_path / "mine", run)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_an_empty_run_is_a_run(tmp_path, make_run):
    run = make_run()
    same(run, read_run(write_run(tmp_path / "run", run)))


def read_all(folder):
    run = read_run(folder)
    return replace(run, iterations=run.iterations.in_memory())


@pytest.fixture
def folder(tmp_path, token_times):
    return write_run(tmp_path / "run", token_times(3, 2).record())


def change_table(path, change):
    table = change(parquet.read_table(path))
    parquet.write_table(table, path)


def set_cell(name, row, value):
    def change(table):
        cells, kind = table[name].to_pylist(), table.schema.field(name).type
        cells[row] = value
        index = table.column_names.index(name)
        return table.set_column(index, pa.field(name, kind), pa.array(cells, kind))

    return change


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("iterations", lambda t: t.drop_columns("flops"), "missing column 'flops'"),
        ("iterations", lambda t: t.append_column("extra", t["flops"]), "unknown column 'extra'"),
        ("iterations", lambda t: t.append_column("flops", t["flops"]), "repeated column 'flops'"),
        (
            "requests",
            lambda t: t.set_column(1, "replica", t["request_id"]),
            "column 'replica' is int64",
        ),
        ("requests", set_cell("prompt_tokens", 1, None), "column 'prompt_tokens' has missing values"),
        (
            "requests",
            set_cell("prompt_tokens", 1, 0),
            "column 'prompt_tokens': wrong value; expected an int",
        ),
        (
            "requests",
            set_cell("replica", 2, 7),
            "row 2, column 'replica': wrong value",
        ),
        ("requests", set_cell("arrival_s", 0, float("nan")), "row 0, column 'arrival_s'"),
        ("requests", set_cell("arrival_s", 0, 99.0), "arrival_s goes back at row 1"),
        ("requests", set_cell("finished_s", 1, -5.0), "row 1, column 'finished_s'"),
        ("requests", set_cell("finished_s", 1, float("inf")), "row 1, column 'finished_s'"),
        ("iterations", set_cell("end_s", 2, -1.0), "row 2, column 'end_s'"),
        ("iterations", set_cell("decodes", 2, -1), "row 2, column 'decodes'"),
        ("iterations", set_cell("stage_time_s", 2, [0.1, 0.2]), "row 2, column 'stage_time_s'"),
        ("iterations", set_cell("stage_time_s", 2, [-0.1]), "row 2, column 'stage_time_s'"),
        ("iterations", set_cell("gap_s", 0, [0.1] * 9), "row 0, column 'gap_count'"),
        ("iterations", set_cell("gap_count", 0, None), "column 'gap_count' has missing values"),
        ("iterations", set_cell("flops", 1, float("nan")), "row 1, column 'flops'"),
    ],
)
def test_what_cannot_be_is_refused_with_its_place(folder, file, change, message):
    change_table(folder / f"{file}.parquet", change)
    with pytest.raises(InputError) as caught:
        read_all(folder)
    assert message in str(caught.value)
    assert f"{file}.parquet" in str(caught.value)


def test_wrong_gaps_are_refused_with_their_iteration(folder, token_times):
    gaps = [row[-1] for row in rows_of(read_run(folder))]
    row = next(index for index, of_one in enumerate(gaps) if of_one)
    change_table(folder / "iterations.parquet", set_cell("gap_s", row, [-1.0] * len(gaps[row])))
    with pytest.raises(InputError, match=f"row {row}, column 'gap_s': wrong value; expected seconds >= 0"):
        read_all(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 4}, "schema version 4; expected 1, 2 or 3"),
        ({"schema_version": True}, "schema version True; expected 1, 2 or 3"),
        ({"source": "guess"}, "source is 'guess'; expected one of simulator, engine"),
        ({"block_size": 0}, "block_size is 0"),
        ({"groups": []}, "groups is empty; expected at least one group"),
        ({"groups": 3}, "key 'groups' is 3; expected"),
        ({"failures": [{**FAILURE, "replica": 2}]}, "replica 2 failed; expected one from 0 to 1"),
        (
            {"failures": [{**FAILURE, "failed_s": 3.0}]},
            r"failures\[0\]: down from 3.0 to 2.0; expected s",
        ),
        ({"failures": [{**FAILURE, "tokens": -1}]}, r"failures\[0\]: tokens is -1"),
        ({"surprise": 1}, "unknown key 'surprise'"),
    ],
)
def test_a_wrong_run_json_is_refused(folder, change, message):
    document = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**document, **change}))
    with pytest.raises(InputError, match=message):
        read_run(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"count": 0}, "count is 0"),
        ({"role": "both of them"}, "role is 'both of them'; expected one of both, prefill, decode"),
        ({"peak_flops": -1.0}, "peak_flops is -1.0"),
        ({"kv_blocks": "many"}, "key 'kv_blocks' is 'many'; expected int"),
        ({"surprise": 1}, "unknown key 'surprise'"),
    ],
)
def test_a_wrong_group_of_replicas_is_refused(folder, change, message):
    document = json.loads((folder / "run.json").read_text())
    document["groups"][0].update(change)
    (folder / "run.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match=rf"run.json, groups\[0\]: {message}"):
        read_run(folder)


def without(document, key):
    return {name: document[name] for name in document if name != key}


def test_every_key_of_run_json_is_needed(folder):
    document = json.loads((folder / "run.json").read_text())
    for key in document:
        (folder / "run.json").write_text(json.dumps(without(document, key)))
        message = "schema version None" if key == "schema_version" else f"'{key}' is missing"
        with pytest.raises(InputError, match=message):
            read_run(folder)
    for key in document["groups"][0]:
        (folder / "run.json").write_text(json.dumps({**document, "groups": [without(document["groups"][0], key)]}))
        with pytest.raises(InputError, match=f"'{key}' is missing"):
            read_run(folder)


def test_a_broken_or_absent_file_is_one_line(folder):
    whole = (folder / "requests.parquet").read_bytes()
    for broken in (b"", b"PAR1 not really", whole[: len(whole) // 2], whole[:-4]):
        (folder / "requests.parquet").write_bytes(broken)
        with pytest.raises(InputError, match=r"requests\.parquet: .*expected a parquet file") as caught:
            read_run(folder)
        assert "\n" not in str(caught.value)
    (folder / "requests.parquet").unlink()
    with pytest.raises(InputError, match=r"requests\.parquet: cannot read"):
        read_run(folder)
    with pytest.raises(InputError, match="no run record"):
        read_run(Path(folder) / "nowhere")


def test_requests_need_exactly_their_columns(token_times):
    recorder = RunRecorder()
    with pytest.raises(ValueError, match="requests need the columns"):
        recorder.requests({"request_id": [1]})


def older(folder, version):
    """Make a record one of an older version, as that wrote it."""
    document = json.loads((folder / "run.json").read_text())
    (group,) = document.pop("groups")
    document = {key: document[key] for key in document if key not in ("router", "link", "failures")}
    replicas = group.pop("count")
    document |= {key: group[key] for key in group if key != "role"}
    document |= {"schema_version": version, "replicas": replicas, "gpus": replicas * group["gpus"]}
    (folder / "run.json").write_text(json.dumps(document))
    change_table(folder / "requests.parquet", lambda table: table.drop_columns(list(NEW_COLUMNS)))
    if version == 1:
        change_table(folder / "iterations.parquet", lambda table: table.drop_columns("outside"))


@pytest.mark.parametrize("version", [1, 2])
def test_a_record_of_an_older_version_becomes_one_of_this(tmp_path, folder, version):
    before = read_all(folder)
    older(folder, version)
    run = read_run(folder)
    same(before, run)
    assert (run.meta.schema_version, run.meta.replicas, len(run.meta.groups)) == (3, 2, 1)
    assert not run.iterations.outside.any()
    np.testing.assert_array_equal(run.requests.decode_replica, run.requests.replica)
    same(run, read_run(write_run(tmp_path / "again", run)))


def test_a_column_that_an_older_version_did_not_have_is_unknown_there(folder):
    older(folder, 2)
    document = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**document, "schema_version": 1}))
    with pytest.raises(InputError, match="unknown column 'outside'"):
        read_run(folder)


def test_unequal_replicas_have_their_own_number_of_stages(tmp_path, make_run):
    run = make_run(
        requests=[{}],
        iterations=[
            {"start_s": 0.0, "end_s": 2.0, "stage_start_s": [0.0, 1.0], "stage_time_s": [1.0, 1.0]},
            {"replica": 2, "start_s": 0.0, "end_s": 3.0},
        ],
        groups=[{"count": 2, "stages": 2, "gpus": 4, "peak_flops": 4e12}, {"role": "decode", "kv_blocks": 7}],
    )
    np.testing.assert_array_equal(run.iterations.stage_start_s, [[0.0, 1.0], [0.0, np.nan]])
    np.testing.assert_array_equal(run.iterations.stage_time_s, [[1.0, 1.0], [3.0, 0.0]])
    same(run, read_run(write_run(tmp_path / "run", run)))
    stored = parquet.read_table(tmp_path / "run" / "iterations.parquet")
    assert stored["stage_start_s"].to_pylist() == [[0.0, 1.0], [0.0]]
    meta = run.meta
    assert (meta.replicas, meta.stages, meta.gpus, meta.kv_blocks, meta.peak_flops) == (3, 2, 9, 207, 9e12)
    assert [meta.group_of(replica).kv_blocks for replica in range(3)] == [100, 100, 7]
    with pytest.raises(IndexError):
        meta.group_of(3)


def test_the_number_of_stages_is_that_of_the_replica(tmp_path, make_run):
    iterations = [{"replica": 1, "start_s": 0.0, "end_s": 2.0, "stage_start_s": [0.0, 1.0], "stage_time_s": [1.0, 1.0]}]
    run = make_run(requests=[{}], iterations=iterations, groups=[{"stages": 2}, {}])
    with pytest.raises(InputError, match="row 0, column 'stage_start_s'"):
        _ = run.iterations.stage_start_s
