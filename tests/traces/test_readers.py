"""Every workload format, plain and gzip, and what is said of files that are none."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from traces.bulk import UnreadableError, read_columns
from traces.columns import Columns
from traces.errors import InputError
from traces.readers import read_head, read_workload
from traces.scan import scan
from traces.stream import MAX_LINE_BYTES, TraceFile

AZURE_2023 = (
    "TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
    "2023-11-16 18:15:46.6805900,374,44\r\n2023-11-16 18:15:50.9951690,396,109\r\n2023-11-16 18:15:51,5,6"
)
AZURE_2024 = (
    "TIMESTAMP,ContextTokens,GeneratedTokens\n"
    "2024-05-11 23:59:59.999999+00:00,1452,3\n2024-05-12 00:00:00+00:00,584,3\n"
)
MOONCAKE = (
    '{"timestamp": 0, "input_length": 1053, "output_length": 26, "hash_ids": [0, 773, 774]}\n'
    '{"timestamp": 5999, "input_length": 915, "output_length": 355, "hash_ids": [0, 462]}\n'
)
BAILIAN = (
    '{"chat_id": 159, "parent_chat_id": 55, "timestamp": 61.114, "input_length": 33, "output_length": 132, '
    '"type": "text", "turn": 2, "hash_ids": [1089, 1090, 1091]}\n'
)
SIM_JSONL = (
    '{"input_toks":3,"output_toks":2,"arrival_time_ns":46926808,"input_tok_ids":[1,2,3],"output_tok_ids":[4,5]}\n'
)
OWN = "arrival_s,prompt_tokens,output_tokens\n"


def write(folder: Path, text: str | bytes, name: str = "trace") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


FORMATS = [
    (AZURE_2023, [0.0, 4.314579, 4.31941], [374, 396, 5], [44, 109, 6]),
    (AZURE_2024, [0.0, 1e-6], [1452, 584], [3, 3]),
    (MOONCAKE, [0.0, 5.999], [1053, 915], [26, 355]),
    (BAILIAN, [61.114], [33], [132]),
    ("num_prefill_tokens,num_decode_tokens,num_total_tokens,pd_ratio\n74,918,992,0.08\n", [0.0], [74], [918]),
    (
        "arrived_at,num_prefill_tokens,num_decode_tokens\n0.0,374,44\n5.89,91,16\n",
        [0.0, 5.89],
        [374, 91],
        [44, 16],
    ),
    ("arrival_time_ns,input_toks,output_toks\n46926808,2358,531\n", [0.046926808], [2358], [531]),
    (SIM_JSONL, [0.046926808], [3], [2]),
    (OWN + "0.25,7,8\n1e1,9,10\n", [0.25, 10.0], [7, 9], [8, 10]),
    ("output_tokens,prompt_tokens,arrival_s\n8,7,0.25\n", [0.25], [7], [8]),
    ("\ufeff" + OWN + "\n 0.25 ,7, 8\n\n", [0.25], [7], [8]),
    ('"arrival_s","prompt_tokens","output_tokens"\n"1","2","3"\n', [1.0], [2], [3]),
]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("text", "arrival_s", "prompt", "output"), FORMATS)
def test_every_format_is_recognised_by_its_columns(tmp_path, text, arrival_s, prompt, output, packed):
    content = gzip.compress(text.encode()) if packed else text.encode()
    workload = read_workload(write(tmp_path, content))
    assert workload.arrival_s.tolist() == pytest.approx(arrival_s, rel=1e-15, abs=0)
    assert workload.prompt_tokens.tolist() == prompt
    assert workload.output_tokens.tolist() == output
    assert workload.prompt_tokens.dtype == workload.output_tokens.dtype == np.int64
    assert workload.arrival_s.dtype == np.float64


@pytest.mark.parametrize("text", [row[0] for row in FORMATS])
def test_the_fast_and_the_exact_reader_agree_on_every_format(tmp_path, text):
    trace = TraceFile(write(tmp_path, text))
    head = read_head(trace)
    fast = read_columns(trace, head)
    assert fast.sound(ordered=True)
    assert_same(fast, scan(trace, head.format, head.layout))


def assert_same(one: Columns, other: Columns) -> None:
    for name in ("time", "prompt_tokens", "output_tokens", "hash_offsets", "hash_values"):
        left, right = getattr(one, name), getattr(other, name)
        assert (left is None) == (right is None), name
        if left is not None:
            np.testing.assert_array_equal(left, right, err_msg=name)
            assert left.dtype == right.dtype, name


def test_lengths_without_arrival_times_are_not_timed(tmp_path):
    workload = read_workload(write(tmp_path, "prompt_tokens,output_tokens\n5,6\n7,8\n"))
    assert not workload.timed
    assert workload.arrival_s.tolist() == [0.0, 0.0]


def test_prefix_hashes_come_with_the_block_size_that_fits_them(tmp_path):
    mooncake = read_workload(write(tmp_path, MOONCAKE)).hash_ids
    bailian = read_workload(write(tmp_path, BAILIAN)).hash_ids
    assert mooncake is not None
    assert bailian is not None
    assert (mooncake.block_size, bailian.block_size) == (512, 16)
    assert mooncake.of(0).tolist() == [0, 773, 774]
    assert mooncake.of(1).tolist() == [0, 462]


def test_a_request_may_lack_prefix_hashes(tmp_path):
    text = MOONCAKE + '{"timestamp": 6000, "input_length": 5, "output_length": 6}\n'
    hashes = read_workload(write(tmp_path, text)).hash_ids
    assert hashes is not None
    assert hashes.of(2).tolist() == []


def test_ticks_of_100_ns_survive_a_trace_of_a_year(tmp_path):
    text = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-01-01 00:00:00.0000001,1,1\n2024-01-01 00:00:00.0000003,1,1\n"
    arrival_s = read_workload(write(tmp_path, text)).arrival_s
    assert arrival_s[1] == (365 * 86400 * 10**7 + 2) / 10**7


def test_zones_are_taken_into_account(tmp_path):
    text = AZURE_2024.replace("00:00:00+00:00", "02:00:00+02:00")
    assert read_workload(write(tmp_path, text)).arrival_s.tolist() == [0.0, 1e-6]


def test_seconds_since_1970_are_made_relative(tmp_path):
    lines = [{"timestamp": 1_700_000_000_123 + ms, "input_length": 1, "output_length": 1} for ms in (0, 250)]
    path = write(tmp_path, "".join(json.dumps(line) + "\n" for line in lines))
    assert read_workload(path).arrival_s.tolist() == [0.0, 0.25]


def test_sort_puts_rows_in_order_and_keeps_ties_in_theirs(tmp_path):
    path = write(tmp_path, OWN + "2,1,1\n1,2,2\n2,3,3\n1,4,4\n")
    with pytest.raises(InputError, match=r"trace:3, column 'arrival_s': .*backwards.*--sort"):
        read_workload(path)
    workload = read_workload(path, sort=True)
    assert workload.arrival_s.tolist() == [1, 1, 2, 2]
    assert workload.prompt_tokens.tolist() == [2, 4, 1, 3]


def test_sort_moves_prefix_hashes_with_their_requests(tmp_path):
    path = write(tmp_path, "".join(reversed(MOONCAKE.splitlines(keepends=True))))
    hashes = read_workload(path, sort=True).hash_ids
    assert hashes is not None
    assert [hashes.of(request).tolist() for request in (0, 1)] == [[0, 773, 774], [0, 462]]


def test_an_output_of_zero_is_one_only_when_asked_for(tmp_path):
    path = write(tmp_path, OWN + "0,5,0\n")
    with pytest.raises(InputError, match=r"trace:2, column 'output_tokens': length 0; .*--zero-output-as-one"):
        read_workload(path)
    assert read_workload(path, zero_output_as_one=True).output_tokens.tolist() == [1]
    with pytest.raises(InputError, match="column 'prompt_tokens': length 0"):
        read_workload(write(tmp_path, OWN + "0,0,5\n"), zero_output_as_one=True)


ROW = '{"timestamp": 0, "input_length": 5, "output_length": 5'
BAD = [
    ("", "trace: is empty"),
    (" \n\n", "trace: is empty"),
    (OWN, "trace: has a header and no requests"),
    (
        "arrival_s,prompt_token,output_tokens\n0,1,2\n",
        ":1: unknown column 'prompt_token'; expected 'prompt_tokens'",
    ),
    ("arrival_s,prompt_tokens,output_tokens,user\n0,1,2,3\n", ":1: unknown column 'user'"),
    ("arrival_s,prompt_tokens\n0,1\n", ":1: column 'output_tokens' is missing"),
    ("prompt_tokens,prompt_tokens,output_tokens\n1,1,1\n", ":1: column 'prompt_tokens' appears twice"),
    ("1,2,3\n4,5,6\n", ":1: no known columns in '1, 2, 3'"),
    (OWN + "0,-4,2\n", ":2, column 'prompt_tokens': negative length -4; expected an integer >= 1"),
    (OWN + "0,4,2\n\n1,4,0\n", ":4, column 'output_tokens': length 0; expected an integer >= 1"),
    (OWN + "0,4.0,2\n", ":2, column 'prompt_tokens': '4.0'; expected an integer"),
    (OWN + "0,nan,2\n", ":2, column 'prompt_tokens': 'nan'; expected an integer"),
    (OWN + "0,1_0,2\n", ":2, column 'prompt_tokens': '1_0'"),
    (OWN + "0,0x10,2\n", ":2, column 'prompt_tokens': '0x10'"),
    (OWN + "0,,2\n", ":2, column 'prompt_tokens': no value"),
    (OWN + "0,NULL,2\n", ":2, column 'prompt_tokens': 'NULL'"),
    (
        OWN + "0,4294967296,2\n",
        ":2, column 'prompt_tokens': length 4294967296; expected an integer from 1 to",
    ),
    (OWN + f"0,{10**30},2\n", "does not fit 64 bits"),
    (OWN + "inf,1,2\n", ":2, column 'arrival_s': 'inf'"),
    (OWN + "1e999,1,2\n", ":2, column 'arrival_s': inf is not a finite number"),
    (OWN + "-1,1,2\n", ":2, column 'arrival_s': negative time '-1'"),
    (OWN + "1e12,1,2\n", ":2, column 'arrival_s': the time '1e12' is out of range"),
    (OWN + "soon,1,2\n", ":2, column 'arrival_s': 'soon'; expected a time"),
    (OWN + "1,1,2\n0.5,1,2\n", ":3, column 'arrival_s': the time '0.5' runs backwards"),
    (OWN + "0,1\n", ":2: 2 fields; expected 3"),
    (OWN + "0,1,2,3\n", ":2: 4 fields; expected 3"),
    (OWN + '0,1,"2\n', ":2: not CSV"),
    ((OWN + "0,1,\u00e9\n").encode("latin-1"), ":2: not UTF-8 text"),
    (b"\x00\xff\xfe\x01PNG", ":1: not UTF-8 text"),
    (
        "arrival_time_ns,input_toks,output_toks\n1.5,1,1\n",
        ":2, column 'arrival_time_ns': '1.5'; expected nanosec",
    ),
    (AZURE_2023.replace("-16 18:15:50", "-31 18:15:50"), ":3, column 'TIMESTAMP': .* is no date and time"),
    (AZURE_2023.replace("2023-11-16 18:15:50.9951690", "18:15"), ":3, column 'TIMESTAMP': '18:15'; expected"),
    (f'{ROW}}}\n{ROW}, "user": 1}}\n', ":2: unknown column 'user'"),
    (f'{ROW}}}\n{{"timestamp": 0, "input_length": 5}}\n', ":2: column 'output_length' is missing"),
    (f"{ROW}\n", ":1: not JSON at character 5"),
    (f"{ROW}}}\n17\n", ":2: a JSON int; expected one JSON object a line"),
    (f"[{ROW}}}]\n", ":1: a JSON array"),
    (f'{ROW}, "timestamp": 1}}\n', ":1: key 'timestamp' appears twice"),
    (f"{ROW.replace('5', '5.5')}}}\n", ":1, column 'input_length': 5.5; expected an integer"),
    (f"{ROW.replace('5', 'true')}}}\n", ":1, column 'input_length': True"),
    (f"{ROW.replace('5', 'null')}}}\n", ":1, column 'input_length': no value"),
    (f"{ROW}}}\n{ROW.replace('0', 'NaN')}}}\n", ":2, column 'timestamp': nan is not a finite number"),
    (
        ROW.replace('"input_length": 5', '"input_length": "5"') + "}\n",
        "column 'input_length': '5'; expected a number",
    ),
    (f'{ROW}, "hash_ids": [1, 2]}}\n', ":1, column 'hash_ids': 2 prefix hashes for a prompt of 5 tokens"),
    (f'{ROW}, "hash_ids": 7}}\n', ":1, column 'hash_ids': 7; expected a list of integers"),
    (f'{ROW}, "hash_ids": ["a"]}}\n', ":1, column 'hash_ids': 'a'; expected a list of integers"),
    ('{"session_id": "a", "arrival_time_ns": 0, "sub_requests": []}\n', ":1: unknown column 'session_id'"),
    ('{"timestamp":' + "[" * 100_000, ":1: not JSON: nested too deeply"),
]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("text", "message"), BAD)
def test_a_bad_file_is_named_with_line_column_and_what_was_expected(tmp_path, text, message, packed):
    content = text.encode() if isinstance(text, str) else text
    path = write(tmp_path, gzip.compress(content) if packed and content else content)
    with pytest.raises(InputError, match=message) as caught:
        read_workload(path)
    assert str(caught.value).startswith(str(path))
    assert "expected" in str(caught.value)


@pytest.mark.parametrize("content", [b"\x1f\x8b", gzip.compress(AZURE_2023.encode())[:-5]])
def test_gzip_that_is_cut_off(tmp_path, content):
    with pytest.raises(InputError, match="cut off"):
        read_workload(write(tmp_path, content))


def test_gzip_that_is_corrupt(tmp_path):
    whole = bytearray(gzip.compress(AZURE_2023.encode() * 100))
    whole[30] ^= 0xFF
    with pytest.raises(InputError, match=r"corrupt|cut off"):
        read_workload(write(tmp_path, bytes(whole)))


def test_a_file_that_is_not_there_and_a_folder(tmp_path):
    with pytest.raises(InputError, match=r"nowhere.*No such file"):
        read_workload(tmp_path / "nowhere")
    with pytest.raises(InputError, match="directory"):
        read_workload(tmp_path)


def test_a_line_without_end_is_refused_without_being_held(tmp_path):
    packed = gzip.compress(OWN.encode() + b"0,1,2\n" + b"7" * (MAX_LINE_BYTES + 10))
    with pytest.raises(InputError, match=":3: a line longer than 16 MiB"):
        read_workload(write(tmp_path, packed))


def test_too_many_requests_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("traces.columns.MAX_REQUESTS", 2)
    with pytest.raises(InputError, match="more than 2 requests"):
        read_workload(write(tmp_path, OWN + "0,1,2\n" * 3))


def test_a_file_of_several_blocks_reads_as_one(tmp_path, monkeypatch):
    text = OWN + "".join(f"{i},{i + 1},{i + 2}\n" for i in range(100))
    monkeypatch.setattr("traces.stream.BLOCK_BYTES", 16)
    workload = read_workload(write(tmp_path, text))
    assert workload.prompt_tokens.tolist() == list(range(1, 101))


GOOD_CELLS = ["0", "1", "7", "12", "+5", "007", " 4", "5 ", "\t8", "1.5", "1e2", ".5", "5.", '"6"']
BAD_CELLS = [
    "-3",
    "1E400",
    "",
    "nan",
    "inf",
    "NULL",
    "0x1F",
    "1_0",
    "\u0663",
    '"',
    "2147483648",
    "--1",
    "1,1",
    "\u00fc",
]
CELLS = st.sampled_from([*GOOD_CELLS, *BAD_CELLS])


@settings(max_examples=300, deadline=None)
@given(
    rows=st.lists(st.tuples(CELLS, CELLS, CELLS), min_size=1, max_size=4),
    ends=st.sampled_from(["\n", "\r\n"]),
)
@example(rows=[("0", "+5", "007")], ends="\n")
def test_what_the_fast_reader_takes_the_exact_one_takes_alike(tmp_path_factory, rows, ends):
    text = ends.join([OWN.strip(), *(",".join(row) for row in rows)])
    trace = TraceFile(write(tmp_path_factory.mktemp("fuzz"), text))
    head = read_head(trace)
    try:
        fast = read_columns(trace, head)
    except UnreadableError:
        return
    if fast.sound(ordered=True):
        assert_same(fast, scan(trace, head.format, head.layout))


VALUES = st.sampled_from(["0", "1", "700", "-1", "1.0", "2.5", "1e2", "null", "true", '"3"', "NaN", "[1]", "1e999"])


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(VALUES, VALUES, VALUES, VALUES), min_size=1, max_size=3))
@example([("0", "1", "1", "null")])
def test_the_same_holds_for_json(tmp_path_factory, rows):
    names = ("timestamp", "input_length", "output_length", "hash_ids")
    text = "".join(
        "{" + ", ".join(f'"{name}": {value}' for name, value in zip(names, row, strict=True)) + "}\n" for row in rows
    )
    trace = TraceFile(write(tmp_path_factory.mktemp("fuzz"), text))
    head = read_head(trace)
    try:
        fast = read_columns(trace, head)
    except UnreadableError:
        return
    if fast.sound(ordered=True):
        assert_same(fast, scan(trace, head.format, head.layout))


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "requests", "span_s", "tokens"),
    [
        ("AzureLLMInferenceTrace_conv.csv.gz", 19366, 3501.721937, (22361870, 4088665)),
        ("AzureLLMInferenceTrace_code.csv.gz", 8819, 3435.948056, (18059974, 245896)),
        ("sharegpt_8k.csv.gz", 30731, 0.0, (71911571, 13481988)),
        ("arxiv_4k.csv.gz", 28257, 0.0, (73131321, 8234948)),
    ],
)
def test_the_published_traces_are_read_whole(data, name, requests, span_s, tokens):
    workload = read_workload(data / "traces" / name)
    assert len(workload) == requests
    assert workload.span_s == span_s
    assert (np.diff(workload.arrival_s) >= 0).all()
    assert (int(workload.prompt_tokens.sum()), int(workload.output_tokens.sum())) == tokens


@pytest.mark.data
def test_the_published_traces_read_alike_both_ways(data):
    for path in sorted((data / "traces").glob("*.csv.gz")):
        trace = TraceFile(path)
        head = read_head(trace)
        assert_same(read_columns(trace, head), scan(trace, head.format, head.layout))


@pytest.mark.data
def test_the_workload_of_the_measured_runs(data):
    workload = read_workload(data / "runs" / "vllm019" / "workload-llama-3.1-8b.csv")
    assert len(workload) == 300
    assert workload.arrival_s[0] == 0.046926808


def test_every_message_is_one_line(tmp_path):
    path = write(tmp_path, "arrival_s,\x1b[31mprompt\ttokens,output_tokens\n0,1,2\n")
    with pytest.raises(InputError) as caught:
        read_workload(path)
    assert not re.search(r"[\x00-\x1f]", str(caught.value))
