import gzip
import math
import time
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from memfeat.errors import ManifestError
from memfeat.manifest import Manifest, VideoRecord, find_problems, read_manifest, write_manifest

HEADER = "video_id,path,score,split\n"
ALLOWED = "a score is a number in [0, 1], or empty if withheld"


def written(folder, rows, header=HEADER):
    path = folder / "m.csv"
    path.write_text(header + rows, encoding="utf-8", errors="surrogateescape", newline="")
    return path


def record(video_id, split="train", score=0.5, **more):
    values = {"video_id": video_id, "path": Path(f"/videos/{video_id}.mp4"), "score": score}
    return VideoRecord.model_validate({**values, "split": split, **more})


def test_a_manifest_reads_as_it_is_written_down(tmp_path):
    header = "split,video_id,score,path,n_annotations,noise_free_score,caption,dataset,group\n"
    path = written(
        tmp_path,
        'dev,a@1,0.25,sub/a b.mp4,90,0.3,"a cat, asleep",Memento10k,g\ntest,b,,/abs/b.mp4,,,,,\n',
        header,
    )
    manifest = read_manifest(path)
    first, second = manifest.records
    assert first == VideoRecord(
        video_id="a@1",
        path=tmp_path / "sub/a b.mp4",
        score=0.25,
        split="dev",
        dataset="Memento10k",
        n_annotations=90,
        noise_free_score=0.3,
        caption="a cat, asleep",
        group="g",
    )
    assert (second.path, second.score, second.n_annotations) == (Path("/abs/b.mp4"), None, None)
    assert manifest.datasets == ("Memento10k",)
    assert manifest.by_id == {"a@1": first, "b": second}
    assert manifest.of_split("test") == (second,)


def test_paths_start_from_the_manifest_or_from_the_given_root(tmp_path):
    (tmp_path / "manifests").mkdir()
    path = written(tmp_path / "manifests", "a,../videos/a.mp4,0.5,dev\n")
    assert read_manifest(path).records[0].path == tmp_path / "videos/a.mp4"
    assert read_manifest(path, Path("/base/data")).records[0].path == Path("/base/videos/a.mp4")


def test_a_path_that_is_not_utf8_still_names_its_file(tmp_path):
    path = tmp_path / "m.csv"
    path.write_bytes(HEADER.encode() + b"a,caf\xe9.mp4,0.5,dev\n")
    manifest = read_manifest(path)
    assert bytes(manifest.records[0].path).endswith(b"/caf\xe9.mp4")
    for copy in (tmp_path / "copy.csv", tmp_path / "copy.jsonl"):
        write_manifest(copy, manifest.records)
        assert read_manifest(copy).records == manifest.records


@pytest.mark.parametrize(
    ("row", "column", "message"),
    [
        (",a.mp4,0.5,dev", "video_id", "'' is empty; every video needs an id"),
        (".,a.mp4,0.5,dev", "video_id", "'.' is not a plain name: ids hold no slashes"),
        ("..,a.mp4,0.5,dev", "video_id", "'..' is not a plain name"),
        ("a/b,a.mp4,0.5,dev", "video_id", "'a/b' is not a plain name"),
        ("a\\b,a.mp4,0.5,dev", "video_id", r"'a\\b' is not a plain name"),
        ("a\0b,a.mp4,0.5,dev", "video_id", r"'a\x00b' holds a control character"),
        ("a\x1bb,a.mp4,0.5,dev", "video_id", r"'a\x1bb' holds a control character"),
        ('"a\nb",a.mp4,0.5,dev', "video_id", r"'a\nb' holds a control character"),
        ("a\u200bb,a.mp4,0.5,dev", "video_id", "holds the invisible character U+200B; remove it"),
        ("\u2066a,a.mp4,0.5,dev", "video_id", "holds the invisible character U+2066"),
        ("a\u2028b,a.mp4,0.5,dev", "video_id", r"'a\u2028b' holds a control character"),
        ("a\udcff,a.mp4,0.5,dev", "video_id", r"'a\udcff' holds a control character"),
        (" a,a.mp4,0.5,dev", "video_id", "' a' begins or ends with white space"),
        (f"{'x' * 201},a.mp4,0.5,dev", "video_id", "is 201 bytes long; ids have at most 200"),
        (f"{'x' * 70000},a.mp4,0.5,dev", "video_id", "is 70000 bytes long"),
        (f"{'é' * 101},a.mp4,0.5,dev", "video_id", "is 202 bytes long"),
        ("a,,0.5,dev", "path", "'' is not a path; name each video's file"),
        ("a,b\0.mp4,0.5,dev", "path", r"'b\x00.mp4' is not a path"),
        ("a,a.mp4,nan,dev", "score", f"'nan' is not in [0, 1]; {ALLOWED}"),
        ("a,a.mp4,inf,dev", "score", "'inf' is not in [0, 1]"),
        ("a,a.mp4,-0.01,dev", "score", "'-0.01' is not in [0, 1]"),
        ("a,a.mp4,87.5,dev", "score", "looks like a 0-100 scale: divide by 100"),
        ("a,a.mp4,101,dev", "score", f"'101' is not in [0, 1]; {ALLOWED}"),
        ("a,a.mp4,high,dev", "score", f"'high' is not a number; {ALLOWED}"),
        ('a,a.mp4,"0,5",dev', "score", "write a decimal point, not a comma"),
        ("a,a.mp4,0.5,val", "split", "'val' is not a split; write one of: train, dev, test"),
        ("a,a.mp4,0.5,", "split", "'' is not a split"),
    ],
)
def test_a_bad_value_is_refused_naming_file_line_column_value_and_rule(
    tmp_path, row, column, message
):
    path = written(tmp_path, f"ok,ok.mp4,0.5,train\n{row}\n")
    (problem,) = find_problems(path)
    assert problem.startswith(f"{path}, line 3, column {column}: ")
    assert message in problem
    assert "\n" not in problem
    assert len(problem) < len(str(path)) + 500


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ('"score": true', "True is not a number"),
        ('"score": [1]', "[1] is not a number"),
        ('"score": NaN', "nan is not in [0, 1]"),
        ('"score": 0.5, "n_annotations": -1', "-1 is not allowed: input should be greater than"),
        ('"score": 0.5, "n_annotations": 1000000000', "should be less than 1000000000"),
        ('"score": 0.5, "caption": "\\ud800"', r"'\ud800' is not UTF-8"),
        ('"score": 0.5, "caption": "\\u0000"', r"'\x00' holds a NUL"),
    ],
)
def test_json_lines_are_checked_as_strictly(tmp_path, cell, message):
    path = tmp_path / "m.jsonl"
    path.write_text(f'{{"video_id": "a", "path": "a.mp4", "split": "dev", {cell}}}\n')
    (problem,) = find_problems(path)
    assert problem.startswith(f"{path}, line 1, column ")
    assert message in problem


NFC, NFD = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ("clip", "clip", "'clip' repeats line 2; ids are unique"),
        ("clip", "CLIP", "'CLIP' differs from 'clip' on line 2 only in case or Unicode form"),
        (NFC, NFD, r"'cafe\u0301' differs from 'caf\xe9' on line 2 only in case or Unicode form"),
        (NFD.upper(), NFC, r"'caf\xe9' differs from 'CAFE\u0301' on line 2"),
    ],
)
def test_ids_that_some_file_system_cannot_tell_apart_are_refused(tmp_path, first, second, message):
    path = written(tmp_path, f"{first},a.mp4,0.5,dev\nother,b.mp4,0.5,dev\n{second},c.mp4,1,dev\n")
    (problem,) = find_problems(path)
    assert problem.startswith(f"{path}, line 4, column video_id: {message}")


def test_one_file_in_two_splits_is_refused_however_its_path_is_spelt(tmp_path):
    path = written(tmp_path, "a,v/x.mp4,0.5,train\nb,v/../v/./x.mp4,0.5,test\n")
    (problem,) = find_problems(path)
    assert problem.startswith(f"{path}, line 3, column path: {str(tmp_path / 'v/x.mp4')!r} is in ")
    assert "split test, and on line 2 in train" in problem


def test_every_problem_is_found_in_order_and_the_error_counts_them(tmp_path):
    path = written(tmp_path, "a,a.mp4,2,dev\na,,x,val\nb,b.mp4,0.5,dev\nb,c.mp4,0,dev\nc\n")
    places = [problem.removeprefix(f"{path}, ").split(": ")[0] for problem in find_problems(path)]
    assert places == [
        "line 2, column score",
        "line 3, column path",
        "line 3, column score",
        "line 3, column split",
        "line 5, column video_id",
        "line 6",
    ]
    with pytest.raises(ManifestError, match=r"line 2, .* \(5 more: `memfeat manifest check`"):
        read_manifest(path)


@pytest.mark.parametrize("content", ["", "\n\n", HEADER])
def test_a_manifest_without_videos_is_refused(tmp_path, content):
    path = written(tmp_path, "", content)
    with pytest.raises(ManifestError, match=r"m\.csv holds no videos; write a header and a line"):
        read_manifest(path)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git LFS"),
        (b"<!doctype html>\n<html><title>Sign in</title></html>\n", "a web page"),
        (b"PK\x03\x04\x14\0\x08\x08", "an Excel workbook"),
        (gzip.compress(b"video_id,path,score,split\n", mtime=0), "gzip"),
    ],
)
def test_what_stands_in_a_manifests_place_is_named(tmp_path, content, what):
    (tmp_path / "m.csv").write_bytes(content)
    with pytest.raises(ManifestError, match=rf"m\.csv, line 1: the file is .*{what}"):
        read_manifest(tmp_path / "m.csv")


def test_a_record_made_in_python_obeys_the_same_rules():
    with pytest.raises(ValidationError, match="looks like a 0-100 scale"):
        record("a", score=70.0)
    with pytest.raises(ValidationError, match="not a plain name"):
        record("a/b")


@settings(deadline=None)
@given(
    rows=st.lists(
        st.tuples(
            st.floats(0, 1) | st.none(),
            st.sampled_from(["train", "dev", "test"]),
            st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
            st.integers(0, 10**9 - 1) | st.none(),
        ),
        min_size=1,
    )
)
def test_what_is_written_reads_back_equal(tmp_path_factory, rows):
    records = tuple(
        record(f"v{number}", split, score, caption=caption, n_annotations=count)
        for number, (score, split, caption, count) in enumerate(rows)
    )
    for name in ("m.csv", "m.tsv", "m.jsonl"):
        path = tmp_path_factory.getbasetemp() / name
        write_manifest(path, records)
        assert read_manifest(path).records == records


def test_a_written_manifest_moves_with_its_videos_and_keeps_its_digest(tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    records = [record("a", path=here / "videos/a.mp4"), record("b", "dev", None, path=here / "b")]
    write_manifest(here / "lists/m.csv", records)
    assert (here / "lists/m.csv").read_text() == (
        "video_id,path,score,split\na,../videos/a.mp4,0.5,train\nb,../b,,dev\n"
    )
    digest = read_manifest(here / "lists/m.csv").digest
    here.rename(there)
    moved = read_manifest(there / "lists/m.csv")
    assert moved.records[0].path == there / "videos/a.mp4"
    assert moved.digest == digest


def test_the_digest_changes_with_ids_splits_scores_and_order_only():
    def digest(*records):
        return Manifest(Path("m.csv"), records).digest

    base = digest(record("a"), record("b"))
    assert digest(record("a", caption="cat", path=Path("/x")), record("b")) == base
    others = [
        digest(record("b"), record("a")),
        digest(record("a"), record("c")),
        digest(record("a"), record("b", "dev")),
        digest(record("a"), record("b", score=math.nextafter(0.5, 1))),
        digest(record("a"), record("b", score=None)),
    ]
    assert len({base, *others}) == 6


def test_writing_the_same_records_leaves_the_file_untouched(tmp_path):
    path = tmp_path / "m.csv"
    write_manifest(path, [record("a")])
    inode = path.stat().st_ino
    write_manifest(path, [record("a")])
    assert path.stat().st_ino == inode
    write_manifest(path, [record("b")])
    assert read_manifest(path).records[0].video_id == "b"
    assert list(tmp_path.iterdir()) == [path]


def test_records_that_could_not_be_read_back_are_not_written(tmp_path):
    path = tmp_path / "m.csv"
    with pytest.raises(ManifestError, match="there are no records"):
        write_manifest(path, [])
    with pytest.raises(ManifestError, match="'A' differs from 'a'"):
        write_manifest(path, [record("a"), record("A")])
    assert not path.exists()


def test_the_summary_counts_each_split_and_its_missing_files(tmp_path):
    (tmp_path / "a.mp4").touch()
    rows = "a,a.mp4,0.25,train\nb,b.mp4,0.75,train\nc,c.mp4,,train\nd,a.mp4/x,,test\n"
    summary = read_manifest(written(tmp_path, rows)).summary()
    train, dev, test = summary.splits
    assert (train.videos, train.with_score, train.withheld, train.missing_files) == (3, 2, 1, 2)
    assert train.mean_score == 0.5
    assert (dev.videos, dev.mean_score) == (0, None)
    assert (test.videos, test.withheld, test.missing_files, test.mean_score) == (1, 1, 1, None)
    assert [warning for warning in summary.warnings if "missing" not in warning] == [
        "train: 2 videos with a score; a correlation needs 3",
        "train: 1 video without a score, left out of training",
        "dev: no videos",
        "test: 0 videos with a score; a correlation needs 3",
    ]
    assert any(
        warning.startswith("train: 2 missing files, the first") for warning in summary.warnings
    )


def test_the_summary_warns_of_constant_scores_shared_files_and_groups_across_splits():
    same = Path("/videos/same.mp4")
    records = (
        *(record(f"t{number}", path=same) for number in range(3)),
        *(record(f"d{number}", "dev", number / 4, group="film") for number in range(3)),
        *(record(f"e{number}", "test", number / 4) for number in range(3)),
        record("e4", "test", 0.1, group="film"),
    )
    warnings = Manifest(Path("m.csv"), records).summary().warnings
    assert [warning for warning in warnings if "missing" not in warning] == [
        "1 file is several videos each, 't0' and 't1' first",
        "1 group in more than one split, 'd0' in dev and 'e4' in test first: what is learnt of one "
        "video gives the others away",
        "train: every score is 0.5; correlations are undefined",
    ]


def test_ten_thousand_rows_read_in_under_a_second_of_cpu_time(tmp_path):
    rows = "".join(f"video{n:05d}@x,folder/{n}.mp4,{n / 1e4},train\n" for n in range(10_000))
    path = written(tmp_path, rows)
    start = time.process_time()
    assert len(read_manifest(path).records) == 10_000
    assert time.process_time() - start < 1
