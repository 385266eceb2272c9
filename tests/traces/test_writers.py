"""What is written is read back, to the precision of its format."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from traces.errors import InputError
from traces.readers import read_workload
from traces.workload import HashIds, Workload
from traces.writers import natural_format, write_workload

ROWS = st.lists(
    st.tuples(st.floats(0, 1e7), st.integers(1, 2**31 - 1), st.integers(1, 2**31 - 1)),
    min_size=1,
    max_size=20,
)


def workload(rows: list[tuple[float, int, int]], **more: object) -> Workload:
    arrival_s, prompt, output = (np.array(column) for column in zip(*sorted(rows), strict=True))
    return Workload(
        name="w", arrival_s=arrival_s.astype(np.float64), prompt_tokens=prompt, output_tokens=output, **more
    )


SMALL = workload([(0.5, 600, 2), (1.25, 3, 4)])


@settings(max_examples=60, deadline=None)
@given(ROWS, st.booleans())
def test_every_format_is_read_back(tmp_path_factory, rows, packed):
    made = workload(rows)
    folder = tmp_path_factory.mktemp("out")
    for to, tolerance_s in (("charioteer", 0.0), ("mooncake", 2e-9), ("azure", 1e-7)):
        path = folder / f"{to}.txt{'.gz' * packed}"
        write_workload(path, made, to=to)
        assert (path.read_bytes()[:2] == b"\x1f\x8b") == packed
        back = read_workload(path)
        since = made.arrival_s[0] if to == "azure" else 0.0
        np.testing.assert_allclose(back.arrival_s, made.arrival_s - since, rtol=0, atol=tolerance_s)
        np.testing.assert_array_equal(back.prompt_tokens, made.prompt_tokens)
        np.testing.assert_array_equal(back.output_tokens, made.output_tokens)
        assert back.timed


def test_lengths_only_stay_lengths_only(tmp_path):
    made = workload([(0.0, 1, 2)], timed=False)
    write_workload(tmp_path / "w.csv", made)
    assert (tmp_path / "w.csv").read_text() == "prompt_tokens,output_tokens\n1,2\n"
    assert not read_workload(tmp_path / "w.csv").timed


def test_prefix_hashes_are_kept_by_mooncake(tmp_path):
    hashes = HashIds(offsets=np.array([0, 2, 3]), values=np.array([7, 8, 9]))
    made = workload([(0.5, 600, 2), (1.25, 3, 4)], hash_ids=hashes)
    write_workload(tmp_path / "w.jsonl", made, to="mooncake")
    first = json.loads((tmp_path / "w.jsonl").read_text().splitlines()[0])
    assert first == {"timestamp": 500, "input_length": 600, "output_length": 2, "hash_ids": [7, 8]}
    back = read_workload(tmp_path / "w.jsonl").hash_ids
    assert back is not None
    assert back.block_size == 512
    np.testing.assert_array_equal(back.values, hashes.values)


def test_azure_has_ticks_of_100_ns(tmp_path):
    write_workload(tmp_path / "w.csv", SMALL, to="azure")
    assert (tmp_path / "w.csv").read_text().splitlines()[1] == "1970-01-01 00:00:00.5000000,600,2"


def test_the_same_workload_is_the_same_bytes(tmp_path):
    for name in ("a.csv.gz", "b.csv.gz"):
        write_workload(tmp_path / name, SMALL)
    assert (tmp_path / "a.csv.gz").read_bytes() == (tmp_path / "b.csv.gz").read_bytes()
    assert gzip.decompress((tmp_path / "a.csv.gz").read_bytes()).startswith(b"arrival_s,")


def test_parts_are_written_as_a_whole(tmp_path, monkeypatch):
    made = workload([(float(i), i + 1, i + 2) for i in range(10)])
    write_workload(tmp_path / "one.csv", made)
    monkeypatch.setattr("traces.writers.ROWS", 3)
    write_workload(tmp_path / "parts.csv", made)
    assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "parts.csv").read_bytes()


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.csv", "charioteer"), ("a.jsonl", "mooncake"), ("a.jsonl.gz", "mooncake"), ("a.gz", "charioteer")],
)
def test_a_name_suggests_a_format(name, kind):
    assert natural_format(name) == kind


@pytest.mark.parametrize("to", ["mooncake", "azure"])
def test_a_format_with_times_refuses_lengths_only(tmp_path, to):
    with pytest.raises(InputError, match=f"w has no arrival times, which {to} needs"):
        write_workload(tmp_path / "w", workload([(0.0, 1, 2)], timed=False), to=to)
    assert not list(tmp_path.iterdir())


def test_an_unknown_format_a_folder_and_a_device_are_refused(tmp_path):
    with pytest.raises(InputError, match="unknown format 'xml'"):
        write_workload(tmp_path / "w", SMALL, to="xml")
    with pytest.raises(InputError, match="is no ordinary file"):
        write_workload(tmp_path, SMALL)
    with pytest.raises(InputError, match="is no ordinary file"):
        write_workload(Path("/dev/null"), SMALL)
    assert not list(tmp_path.iterdir())


def test_a_link_is_followed(tmp_path):
    (tmp_path / "real.csv").touch()
    (tmp_path / "link.csv").symlink_to("real.csv")
    write_workload(tmp_path / "link.csv", SMALL)
    assert (tmp_path / "link.csv").is_symlink()
    assert len(read_workload(tmp_path / "real.csv")) == 2
