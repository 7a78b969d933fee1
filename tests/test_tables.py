import csv
import json
from pathlib import Path

import pytest

from memfeat.errors import ManifestError, short_repr
from memfeat.storage import format_rows, read_rows


def read(path: Path) -> list[tuple[int, dict[str, object]]]:
    return list(read_rows(path, ["a", "b"], ["c"]))


def refusal(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(ManifestError) as error:
        read(path)
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    return message.removeprefix(str(path))


def test_rows_come_with_the_line_they_start_on(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text('a,b\n1,2\n\n"two\nlines",4\n5,6\n')
    assert read(path) == [
        (2, {"a": "1", "b": "2"}),
        (4, {"a": "two\nlines", "b": "4"}),
        (6, {"a": "5", "b": "6"}),
    ]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_byte_order_mark_and_any_line_ending_read_alike(tmp_path, end):
    path = tmp_path / "t.csv"
    path.write_bytes(f"a,b{end}1,é{end}".encode("utf-8-sig"))
    assert read(path) == [(2, {"a": "1", "b": "é"})]


def test_the_suffix_tells_the_format(tmp_path):
    row = {"a": "1", "b": "x,y"}
    tsv, lines = tmp_path / "t.tsv", tmp_path / "t.jsonl"
    tsv.write_text("a\tb\n1\tx,y\n")
    lines.write_text(json.dumps(row) + "\n")
    assert read(tsv) == [(2, row)]
    assert read(lines) == [(1, row)]


def test_written_csv_is_what_the_csv_module_reads(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(format_rows(path, ["a", "b"], [{"a": 'say "hi"', "b": 0.1, "c": None}]))
    with path.open(newline="") as file:
        assert list(csv.DictReader(file)) == [{"a": 'say "hi"', "b": "0.1"}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a;b\n1;2\n", ", line 1: the header 'a;b' is separated by ';'; write ','"),
        (b"a\tb\n1\t2\n", ", line 1: the header 'a\\tb' is separated by '\\t'; write ','"),
        (b'a,b\n"1"x,2\n', ", line 2: wrong quoting: ',' expected after '\"'"),
        (b'a,b\n1,2\n"3,4\n5,6\n', ", line 3: wrong quoting: unexpected end of data"),
        (b"a,b\n1,0,5\n", ", line 2: 3 fields ['1', '0', '5'], but the header has 2"),
        (b"a,b\n1\n", ", line 2: 1 fields ['1'], but the header has 2"),
        (b"a,c\n", ", line 1: missing column 'b'; required: a, b; optional: c"),
        (b"a,b,d,e\n", ", line 1: unknown columns 'd', 'e'; required: a, b; optional: c"),
        (b"a,b,a\n", ", line 1: repeated column 'a'; required: a, b; optional: c"),
        ("a,b\n".encode("utf-16"), ", line 1: the file is UTF-16; save it as UTF-8"),
        (b"a,b\n" + b"x" * 200_000 + b",1\n", ", line 2: wrong quoting: field larger than"),
    ],
)
def test_a_malformed_table_is_refused_in_one_line_that_names_the_place(tmp_path, content, message):
    assert refusal(tmp_path / "t.csv", content).startswith(message)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": 1, "b": 2}\n{"a": 1', ", line 2: '{\"a\": 1' is not JSON:"),
        (b"[1, 2]\n", ", line 1: '[1, 2]' is not a JSON object {...}"),
        (b'{"a": 1}\n', ", line 1: missing column 'b'"),
        (
            b'{"a": 1, "b": 2, "a": 3}\n',
            ', line 1: \'{"a": 1, "b": 2, "a": 3}\' is not JSON: \'a\' s',
        ),
        (b"[" * 100_000, ", line 1: '[[["),
    ],
)
def test_malformed_json_lines_are_refused_in_one_line(tmp_path, content, message):
    assert refusal(tmp_path / "t.jsonl", content).startswith(message)


def test_an_unreadable_file_is_named_with_the_reason(tmp_path):
    with pytest.raises(ManifestError, match=r"cannot read .*none\.csv: No such file"):
        read(tmp_path / "none.csv")
    with pytest.raises(ManifestError, match=r"cannot read .*: Is a directory"):
        read(tmp_path)


def test_shown_values_are_short_and_printable():
    assert short_repr("a\nb\x00") == r"'a\nb\x00'"
    assert len(short_repr("x" * 70_000)) < 300
    assert short_repr("\udcff").isascii()
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    assert short_repr(deep) == "a list in too many brackets"
