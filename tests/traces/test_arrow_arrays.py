from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from traces.arrow_arrays import lists_to_arrow, to_arrow, to_numpy
from traces.column_source import TablesInMemory
from traces.errors import InputError
from traces.run_record import write_run

LISTS = st.lists(st.lists(st.integers(-5, 5), max_size=4), max_size=9)


@pytest.mark.parametrize("kind", ["int32", "int64", "float64"])
@given(values=st.lists(st.integers(-(2**31), 2**31 - 1)))
def test_numbers_come_back(kind, values):
    array = to_arrow(kind, values)
    assert array.to_pylist() == values
    back = to_numpy(array)
    assert (back.tolist(), str(back.dtype)) == (values, kind)


@given(values=LISTS, cut=st.integers(0, 9))
def test_lists_come_back_from_parts_of_tables(values, cut):
    import pyarrow as pa

    whole = lists_to_arrow("list<int32>", [len(each) for each in values], [one for each in values for one in each])
    assert whole.to_pylist() == values
    parts = [pa.RecordBatch.from_arrays([part], ["a"]) for part in (whole[:cut], whole[cut:])]
    source = TablesInMemory(parts, Path("here"), {"a": "list<int32>"})
    offsets, flat = source.lists("a")
    assert [flat[begin:end].tolist() for begin, end in pairwise(offsets)] == values
    assert (offsets.dtype, flat.dtype) == (np.int64, np.int32)


@pytest.mark.parametrize("values", [np.array([2**40]), np.array([0.5]), np.array([np.nan])])
def test_a_number_that_a_type_does_not_have_is_a_programming_error(values):
    with pytest.raises(ValueError, match="no int32"), np.errstate(invalid="ignore"):
        to_arrow("int32", values)


def test_missing_values_are_refused_in_lists_too():
    import pyarrow as pa

    for array, kind in (
        (pa.array([1, None], pa.int32()), "int32"),
        (pa.array([[1], [None]], pa.list_(pa.int32())), "list<int32>"),
    ):
        source = TablesInMemory([pa.RecordBatch.from_arrays([array], ["a"])], Path("here"), {"a": kind})
        with pytest.raises(InputError, match="here: column 'a' has missing values; expected none"):
            (source.lists if kind.startswith("list") else source.numbers)("a")


def test_a_record_is_read_and_measured_without_pandas(tmp_path, token_times):
    write_run(tmp_path / "run", token_times(3, 2).record())
    code = (
        "import sys; from traces.metrics import measure; from traces.run_record import read_run, write_run; "
        f"run = read_run({str(tmp_path / 'run')!r}); measure(run); write_run({str(tmp_path / 'again')!r}, run); "
        "print([name for name in ('pandas', 'pyarrow.compute', 'numpy.ma', 'scipy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
