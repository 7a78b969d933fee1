"""Other people's label files to a manifest, over folders whose every row is made up."""

import json
import random
import time
from collections import Counter
from pathlib import Path

import pytest
from commands import run, told
from made_up_datasets import (
    CHANNELS,
    MAKERS,
    OPTIONS,
    MadeUp,
    memento10k,
    memento10k_mediaeval,
    movie,
    score_of,
    videm,
    videomem,
    write_csv,
    youtube_id,
)

from memfeat.config import ConvertConfig
from memfeat.datasets import FORMATS, Conversion, convert
from memfeat.datasets.folder import Folder
from memfeat.datasets.splits import seeded_split
from memfeat.errors import ConfigError, ManifestError, UnknownNameError
from memfeat.manifest import Manifest, find_problems, read_manifest
from memfeat.storage.names import stem

MEDIAEVAL = "video_id,video_url,scores_normalized_short_term,scores_raw_short_term"
VIDEOMEM = "video,short-term_memorability,nb_short-term_annotations"


def converted(name: str, folder: Path, **options: object) -> tuple[Conversion, Manifest]:
    output = folder / "m.csv"
    settings = OPTIONS.get(name, {}) | options
    conversion = convert(name, folder, output, ConvertConfig.model_validate(settings))
    return conversion, read_manifest(output)


def refusal(name: str, folder: Path, **options: object) -> str:
    with pytest.raises(ManifestError) as error:
        converted(name, folder, **options)
    assert "\n" not in str(error.value)
    assert not (folder / "m.csv").exists()
    return str(error.value)


def touched(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def counts(conversion: Conversion) -> dict[str, tuple[int, ...]]:
    return {
        split.split: (split.listed, split.found, split.missing, split.unlabelled, split.written)
        for split in conversion.splits
    }


# --- what holds for every registered format ---


@pytest.mark.parametrize("name", list(FORMATS))
def test_a_made_up_folder_becomes_a_manifest_with_every_score_and_split(name, tmp_path):
    made: MadeUp = MAKERS[name](tmp_path)
    conversion, manifest = converted(name, tmp_path)
    assert find_problems(conversion.manifest) == ()
    expected = {v: s for v, s in made.scores.items() if v not in conversion.missing}
    assert {record.video_id: record.score for record in manifest.records} == expected
    assert all(record.path.is_file() for record in manifest.records)
    for record in manifest.records:
        of_test = made.splits.get(record.video_id) == "test"
        if FORMATS.get(name).has_splits:
            assert record.split == made.splits[record.video_id]
        elif made.splits:
            assert (record.split == "test") == of_test
    assert conversion.missing == ((youtube_id(13), youtube_id(17)) if name == "videm" else ())
    assert conversion.unlisted == ()


@pytest.mark.parametrize("name", list(FORMATS))
def test_the_dataset_column_names_the_score_and_changes_with_the_labels(name, tmp_path):
    MAKERS[name](tmp_path)
    for target, words in FORMATS.get(name).targets.items():
        conversion, manifest = converted(name, tmp_path, target=target)
        assert words in conversion.dataset
        assert manifest.datasets == (conversion.dataset,)
    before = conversion.labels[0].read_text(encoding="utf-8-sig")
    conversion.labels[0].write_text(before.replace("0.4", "0.5"))
    again, _ = converted(name, tmp_path, target=target)
    assert again.dataset != conversion.dataset


@pytest.mark.parametrize("name", list(FORMATS))
def test_a_folder_without_the_label_files_is_refused_by_their_names(name, tmp_path):
    touched(tmp_path, "other.csv", "v.mp4")
    message = refusal(name, tmp_path)
    assert message.startswith(f"{tmp_path} has none of the label files ")
    assert message.endswith(", but holds other.csv")
    assert FORMATS.get(name).about.split(" ")[0].split("{")[0] in message


@pytest.mark.parametrize("name", list(FORMATS))
def test_an_unknown_target_lists_the_formats_own(name, tmp_path):
    MAKERS[name](tmp_path)
    with pytest.raises(UnknownNameError) as error:
        converted(name, tmp_path, target="nope")
    assert "unknown target 'nope'" in str(error.value)
    assert all(target in str(error.value) for target in FORMATS.get(name).targets)


# --- Memento10k, native ---


def test_a_list_and_an_object_of_records_give_the_same_manifest(tmp_path):
    digests = set()
    for as_object in (False, True):
        memento10k(tmp_path, as_object=as_object)
        _, manifest = converted("memento10k", tmp_path)
        assert len(manifest.records) == 7
        digests.add(manifest.digest)
    assert len(digests) == 1


def test_the_key_names_the_video_where_the_record_does_not(tmp_path):
    content = {"clip@1.mp4": {"mem_score": 0.7}, "clip@2": {"mem_score": 0.8}}
    (tmp_path / "memento_train_data.json").write_text(json.dumps(content))
    touched(tmp_path, "clip@1.webm", "a/clip@2.mp4")
    _, manifest = converted("memento10k", tmp_path)
    assert {record.video_id: record.score for record in manifest.records} == {
        "clip@1": 0.7,
        "clip@2": 0.8,
    }


def test_captions_are_kept_and_a_test_split_without_scores_counts_as_unlabelled(tmp_path):
    memento10k(tmp_path)
    conversion, manifest = converted("memento10k", tmp_path)
    assert manifest.records[0].caption == "thing 0 moves | a moving thing, 0"
    assert counts(conversion) == {
        "train": (3, 3, 0, 0, 3),
        "dev": (2, 2, 0, 0, 2),
        "test": (2, 2, 0, 2, 2),
    }


def test_keys_nobody_knows_are_named_and_do_no_harm(tmp_path):
    path = tmp_path / "memento_train_data.json"
    path.write_text(json.dumps([{"filename": "a.mp4", "mem_score": 0.5, "mood": "good"}]))
    conversion, _ = converted("memento10k", touched(tmp_path, "a.mp4"))
    assert conversion.notes == ("memento_train_data.json also has mood: not used",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[{]", " is not JSON in UTF-8: "),
        ("3", ": 3 is neither a list nor an object of records"),
        ("[3]", ", record 1: 3 is not an object {...}"),
        ('[{"filename": "a.mp4", "mem_score": 87}]', ", record 1, column mem_score: 87 is not in"),
        (
            '[{"filename": "a.mp4", "x": 1}]',
            ": no record has the key 'mem_score'; keys found: filena",
        ),
        (
            '[{"name": "a.mp4", "mem_score": 1}]',
            ", record 1, key 'filename': '' is not a file's na",
        ),
        ('{"x": {"filename": "a.mp4", "mem_score": NaN}}', ", record 'x', column mem_score: nan"),
    ],
)
def test_a_malformed_json_file_is_refused_in_one_line(content, message, tmp_path):
    path = touched(tmp_path, "a.mp4") / "memento_train_data.json"
    path.write_text(content)
    assert refusal("memento10k", tmp_path).startswith(f"{path}{message}")


# --- Memento10k, MediaEval ---


def test_normalised_scores_are_the_default_and_raw_ones_the_other_choice(tmp_path):
    memento10k_mediaeval(tmp_path)
    _, normalised = converted("memento10k-mediaeval", tmp_path)
    _, raw = converted("memento10k-mediaeval", tmp_path, target="raw")
    assert [record.score for record in normalised.of_split("train")] == [
        score_of(number) for number in range(3)
    ]
    assert {record.score for record in raw.of_split("dev")} == {0.25}
    assert {record.n_annotations for record in raw.of_split("dev")} == {90}


@pytest.mark.parametrize(
    ("video_id", "url", "file"),
    [
        ("493", "", "Videos/00493.mp4"),
        ("7", "https://nowhere.example/a/clip%401.mp4?raw=1", "a/clip@1.mp4"),
    ],
)
def test_a_number_without_its_zeros_and_a_url_with_escapes_and_query_find_their_file(
    video_id, url, file, tmp_path
):
    rows = [[video_id, url, "0.5", "0.6"]]
    write_csv(tmp_path / "train_scores.csv", MEDIAEVAL.split(","), rows)
    _, manifest = converted("memento10k-mediaeval", touched(tmp_path, file))
    assert (manifest.records[0].video_id, manifest.records[0].path) == (video_id, tmp_path / file)


def test_counts_that_are_none_are_left_out_and_said_so(tmp_path):
    header = [*MEDIAEVAL.split(","), "annotations_short_term"]
    write_csv(tmp_path / "train_scores.csv", header, [["a", "", "0.5", "0.6", "see file"]])
    conversion, manifest = converted("memento10k-mediaeval", touched(tmp_path, "a.mp4"))
    assert manifest.records[0].n_annotations is None
    assert conversion.notes == ("annotations_short_term is 'see file', not a count: left out",)


# --- VideoMem ---


def test_long_term_scores_reach_0_and_1(tmp_path):
    videomem(tmp_path)
    conversion, manifest = converted("videomem", tmp_path, target="long-term")
    assert manifest.by_id["video2"].score == 0
    assert manifest.by_id["video3"].score == 1
    assert manifest.by_id["video3"].n_annotations == 12
    assert "long-term" in conversion.dataset


def test_ten_thousand_videos_are_divided_as_in_2022_whatever_their_order():
    ids = [f"video{number}" for number in range(10_000)]
    drawn = seeded_split(ids, 0)
    assert Counter(drawn.values()) == {"train": 7000, "dev": 1500, "test": 1500}
    random.Random(1).shuffle(ids)
    assert seeded_split(ids, 0) == drawn
    other = seeded_split(ids, 1)
    same = sum(other[video_id] == drawn[video_id] for video_id in ids)
    assert 0.5 < same / 10_000 < 0.57  # .7² + .15² + .15² = .535 by chance


def test_the_draw_is_named_and_does_not_depend_on_which_videos_are_there(tmp_path):
    videomem(tmp_path)
    conversion, whole = converted("videomem", tmp_path, seed=3)
    assert conversion.dataset.endswith("split by memfeat with seed 3")
    (tmp_path / "dev-set/sources/video5.mp4").unlink()
    again, part = converted("videomem", tmp_path, seed=3)
    assert again.missing == ("video5",)
    assert {record.video_id: record.split for record in part.records} == {
        record.video_id: record.split for record in whole.records if record.video_id != "video5"
    }


def test_the_organisers_test_list_is_the_test_split_and_the_rest_is_divided(tmp_path):
    videomem(tmp_path, (17, 0, 0))
    (tmp_path / "test-set_list.txt").write_text("hidden1.webm\nhidden2.webm\ta thing moves\n\n")
    touched(tmp_path, "test-set/hidden1.mp4", "test-set/hidden2.mp4", "test-set/stranger.mp4")
    conversion, manifest = converted("videomem", tmp_path)
    assert counts(conversion) == {
        "train": (14, 14, 0, 0, 14),
        "dev": (3, 3, 0, 0, 3),
        "test": (2, 2, 0, 2, 2),
    }
    assert [record.video_id for record in manifest.of_split("test")] == ["hidden1", "hidden2"]
    assert [path.name for path in conversion.unlisted] == ["stranger.mp4"]


def test_scores_of_the_test_set_are_taken_where_they_are(tmp_path):
    videomem(tmp_path, (17, 0, 0))
    write_csv(tmp_path / "ground-truth_test-set.csv", VIDEOMEM.split(","), [["t.webm", 0.25, 30]])
    _, manifest = converted("videomem", touched(tmp_path, "t.mp4"))
    (record,) = manifest.of_split("test")
    assert (record.video_id, record.score, record.n_annotations) == ("t", 0.25, 30)


def test_a_list_of_splits_overrides_and_leaves_out_what_it_does_not_name(tmp_path):
    videomem(tmp_path, (4, 0, 0))
    rows = [["video0.webm", "train"], ["video1.mp4", "val"], ["video2", "test"], ["x", "test"]]
    splits = write_csv(tmp_path / "official.csv", ["video", "split"], rows)
    conversion, manifest = converted("videomem", tmp_path, splits=splits)
    assert {record.video_id: record.split for record in manifest.records} == {
        "video0": "train",
        "video1": "dev",
        "video2": "test",
    }
    assert conversion.dataset.endswith("split of official.csv")
    assert conversion.notes == (
        f"1 listed video not in {splits}: left out",
        f"1 video of {splits} in no label file",
    )


def test_a_seed_is_refused_where_the_files_tell_the_split(tmp_path):
    memento10k(tmp_path)
    with pytest.raises(ConfigError, match="seed = 1 has no use: format 'memento10k' says which"):
        converted("memento10k", tmp_path, seed=1)


# --- finding videos ---


def test_missing_videos_are_counted_and_left_out_unless_asked_for(tmp_path):
    memento10k(tmp_path)
    (tmp_path / "videos/made-up-1@c_1.mp4").unlink()
    (tmp_path / "videos/made-up-5@c_5.mp4").unlink()
    conversion, manifest = converted("memento10k", tmp_path)
    assert conversion.missing == ("made-up-1@c_1", "made-up-5@c_5")
    assert counts(conversion)["train"] == (3, 2, 1, 0, 2)
    assert counts(conversion)["test"] == (2, 1, 1, 2, 1)
    assert not set(conversion.missing) & set(manifest.by_id)
    kept, manifest = converted("memento10k", tmp_path, keep_missing=True)
    assert counts(kept)["train"] == (3, 2, 1, 0, 3)
    assert manifest.by_id["made-up-1@c_1"].path == tmp_path / "made-up-1@c_1.mp4"


def test_videos_may_lie_elsewhere_in_any_format_behind_links(tmp_path):
    labels, videos = tmp_path / "labels", tmp_path / "big disk"
    labels.mkdir()
    memento10k(labels)
    for number, path in enumerate(sorted((labels / "videos").iterdir())):
        suffix = (".webm", ".MKV", ".mp4")[number % 3]
        touched(videos, f"deep/{number % 2}/{path.stem}{suffix}", f"features/{path.stem}.npy")
        path.unlink()
    (tmp_path / "link").symlink_to(videos)
    (videos / "deep" / "loop").symlink_to(videos)
    conversion, manifest = converted("memento10k", labels, videos=tmp_path / "link")
    assert conversion.missing == ()
    assert {record.path.suffix for record in manifest.records} == {".webm", ".MKV", ".mp4"}


def test_two_videos_of_one_stem_are_refused_with_both_names(tmp_path):
    memento10k(tmp_path)
    name = "made-up-1@c_1"
    touched(tmp_path, f"a/{name}.webm", f"b/{name}.mkv")
    (tmp_path / f"videos/{name}.mp4").unlink()
    message = refusal("memento10k", tmp_path)
    assert f"{tmp_path}/a/{name}.webm or {tmp_path}/b/{name}.mkv" in message
    assert message.startswith(f"{tmp_path}/memento_train_data.json, record 2: ")


def test_of_two_videos_of_one_stem_the_listed_folder_then_the_listed_name_wins(tmp_path):
    touched(tmp_path, "one/v.mp4", "two/v.mp4", "two/v.webm", "three/w.mp4")
    folder = Folder(tmp_path)
    assert folder.video(["two/v.webm"]) == tmp_path / "two/v.webm"
    assert folder.video(["http://nowhere.example/one/v.avi"]) == tmp_path / "one/v.mp4"
    assert folder.video(["gone", "w.webm"]) == tmp_path / "three/w.mp4"
    assert folder.video(["gone"]) is None
    with pytest.raises(ManifestError, match="'v' may be "):
        folder.video(["v"])


def test_a_stem_keeps_dots_that_begin_no_videos_suffix():
    assert stem("a/b.c@1.v2.mp4") == "b.c@1.v2"
    assert stem("name.with.dots") == "name.with.dots"
    assert stem("http://nowhere.example/x/y.WEBM?z=1") == "y"


def test_rows_without_any_video_are_kept_for_features_made_elsewhere(tmp_path):
    memento10k(tmp_path)
    other = touched(tmp_path / "other", "x.mp4")
    conversion, manifest = converted("memento10k", tmp_path, videos=other, keep_missing=True)
    assert len(manifest.records) == len(conversion.missing) == 7


def test_a_folder_without_any_of_the_videos_is_refused(tmp_path):
    memento10k(tmp_path)
    other = touched(tmp_path / "other", "x.mp4")
    message = refusal("memento10k", tmp_path, videos=other)
    assert message.startswith(f"none of the 7 listed videos is in {other}, which holds 1 video;")
    assert "is not there; give the folder" in refusal("memento10k", tmp_path, videos=tmp_path / "n")


# --- Memento10k's decay ---


def test_the_score_at_a_lag_is_on_the_line_through_80_videos(tmp_path):
    memento10k(tmp_path)
    path = tmp_path / "memento_train_data.json"
    content = json.loads(path.read_text())
    for record, alpha in zip(content, (-0.001, 0.002, -0.01), strict=True):
        record["alpha"] = alpha
    path.write_text(json.dumps(content))
    known = [record["mem_score"] for record in content]
    for lag in (0, 80, 180):
        conversion, manifest = converted("memento10k", tmp_path, lag=lag)
        found = [record.score for record in manifest.records if record.split == "train"]
        line = [s + a * (lag - 80) for s, a in zip(known, (-0.001, 0.002, -0.01), strict=True)]
        assert found == pytest.approx([min(1, max(0, value)) for value in line])
        assert f"mem_score of the native release at a lag of {lag} videos" in conversion.dataset
    assert conversion.notes == ("1 score of 0 or 1 at this lag, where they end",)


def test_a_lag_needs_a_decay_and_a_format_that_has_one(tmp_path):
    memento10k(tmp_path)
    path = tmp_path / "memento_val_data.json"
    path.write_text(path.read_text().replace('"alpha": -0.001', '"alpha": null', 1))
    message = refusal("memento10k", tmp_path, lag=150)
    assert f"{path}, record 1: mem_score is 0." in message
    assert "alpha None; both have to be numbers for a score at a lag" in message
    videomem(tmp_path / "other")
    with pytest.raises(ConfigError, match=r"lag = 150.0 has no use: .*'memento10k' takes it"):
        converted("videomem", tmp_path / "other", lag=150)


# --- VIDEM ---


def test_adverts_of_a_channel_are_a_group_and_stay_on_one_side(tmp_path):
    videm(tmp_path, (60, 5))
    conversion, manifest = converted("videm", tmp_path)
    splits = {}
    for number, record in enumerate(converted("videm", tmp_path, keep_missing=True)[1].records):
        channel = CHANNELS[number % 3 and number % len(CHANNELS)]
        assert (record.group, record.title) == (channel, f"Made-up advert {number}")
        assert record.description == f'Says "buy",\nthen {number}.'
        assert record.n_annotations == (17 if record.split != "test" else None)
        if record.split != "test":
            splits.setdefault(record.group, set()).add(record.split)
    assert len(splits) == len(CHANNELS)
    assert all(len(found) == 1 for found in splits.values())
    assert {"train", "dev"} == set.union(*splits.values())
    assert len(manifest.records) == 63
    assert "first 60 s" in conversion.notes[0]


def test_either_of_two_scores_is_the_target_and_one_that_is_missing_is_withheld(tmp_path):
    videm(tmp_path)
    _, manifest = converted("videm", tmp_path, target="brand_memorability")
    brand = [record.score for record in manifest.records if record.split != "test"]
    assert brand == [None if n == 1 else score_of(n + 5) for n in range(13)]


def test_an_advert_of_which_there_are_frames_alone_is_the_folder_of_these(tmp_path):
    videm(tmp_path)
    frames = tmp_path / "devset" / "frames" / youtube_id(13)
    touched(frames, "0001.jpg", "0002.jpg")
    touched(tmp_path / "devset" / "frames" / youtube_id(0), "0001.jpg")  # which has a video too
    conversion, manifest = converted("videm", tmp_path)
    assert manifest.by_id[youtube_id(13)].path == frames
    assert manifest.by_id[youtube_id(0)].path.suffix == ".mp4"
    assert conversion.notes[-1] == "1 folder of frames among the videos: extract with --fps"


def test_without_the_test_sets_list_there_is_no_test_split_of_it_and_a_note(tmp_path):
    videm(tmp_path)
    (tmp_path / "testset" / "testset_videolist.csv").unlink()
    conversion, _ = converted("videm", tmp_path)
    assert conversion.notes[-1].startswith("no test set: there is none of testset_videolist_GT.csv")


# --- films, and columns that the user names ---


def test_films_are_read_from_the_columns_named_and_what_is_assumed_is_said(tmp_path):
    movie(tmp_path)
    conversion, manifest = converted("movie", tmp_path, group_column="film")
    (note,) = conversion.notes
    assert note.startswith("assumed, for want of a description: test.csv, train.csv list the ")
    assert note.endswith(
        "the 14 with a number in 'rating' are to learn from, the 3 without are the test set"
    )
    films = {}
    for record in manifest.records:
        number = int(record.video_id.removeprefix("film_"))
        assert record.group == f"Film {number // 3}"
        films.setdefault(record.group, set()).add(record.split)
    assert all(len(splits - {"test"}) <= 1 for splits in films.values())


def test_columns_that_are_not_named_are_asked_for_with_those_that_are_there(tmp_path):
    movie(tmp_path)
    with pytest.raises(ConfigError, match=r"--score-column; .*train.csv \(excerpt, film, rating\)"):
        converted("movie", tmp_path, score_column="")
    with pytest.raises(
        ConfigError, match=r"id_column = 'x' has no use: .*'movie' takes it, 'videm'"
    ):
        converted("videm", tmp_path, id_column="x")


# --- errors name file, row, column and value ---

HIGH = [["a.webm", "0.5", "30"], ["b.webm", "1.5", "30"], ["c.webm", "-1", "30"]]
TWICE = [["a.webm", "0.5", "30"], ["A.mp4", "0.5", "30"]]
SHARED = [["1", "x/a.mp4", "0.5", "0.5"], ["2", "x/a.mp4", "0.5", "0.5"]]
NAMELESS = [["a", "", "0.5", "0.6"], ["", "", "0.5", "0.6"]]


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        (VIDEOMEM, HIGH, ", line 3, column short-term_memorability: '1.5' is not in [0, 1]; a sc"),
        (VIDEOMEM, TWICE, ", line 3, column video: 'A' is also at {}, line 2, as 'a'; a video is"),
        (VIDEOMEM, [["", "0.5", "30"]], ", line 2, column video: '' is empty; every video needs"),
        (VIDEOMEM, [["a.webm", "0.5"]], ", line 2: 2 fields ['a.webm', '0.5'], but the header has"),
        (VIDEOMEM, [], " lists no videos"),
        ("video,score", [["a", "0.5"]], ", line 1: missing column 'short-term_memorability'"),
        (MEDIAEVAL, NAMELESS, ", line 3, column video_id: '' is empty; every video needs an id"),
        (MEDIAEVAL, SHARED, ", line 3: its file is {folder}/x/a.mp4, as it is at {}, line 2"),
    ],
)
def test_a_wrong_row_is_named_in_one_line(header, rows, message, tmp_path):
    touched(tmp_path, "x/a.mp4", "b.mp4", "c.mp4")
    name, file = "videomem", "ground-truth_dev-set.csv"
    if header is MEDIAEVAL:
        name, file = "memento10k-mediaeval", "train_scores.csv"
    path = write_csv(tmp_path / file, header.split(","), rows)
    assert refusal(name, tmp_path).startswith(f"{path}{message.format(path, folder=tmp_path)}")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([["video0", "dev2"]], ", line 2, column split: 'dev2' is not a split; write one of: "),
        (
            [["video0", "dev"], ["video0.mp4", "test"]],
            ", line 3, column split: 'video0' is in test",
        ),
        ([["clip0", "dev"]], " names none of the 4 listed videos; 'video0' is the first of them"),
    ],
)
def test_a_malformed_list_of_splits_is_refused(rows, message, tmp_path):
    videomem(tmp_path, (4, 0, 0))
    splits = write_csv(tmp_path / "official.csv", ["video", "split"], rows)
    assert refusal("videomem", tmp_path, splits=splits).startswith(f"{splits}{message}")


def test_a_manifest_of_another_kind_is_refused_before_anything_is_read(tmp_path):
    with pytest.raises(ManifestError, match=r"m\.parquet: .* ends in \.csv, \.tsv, \.jsonl$"):
        convert("videomem", tmp_path / "none", tmp_path / "m.parquet", ConvertConfig())


def test_label_files_are_never_overwritten(tmp_path):
    videomem(tmp_path)
    (labels,) = tmp_path.rglob("ground-truth_dev-set.csv")
    before = labels.read_bytes()
    with pytest.raises(ManifestError, match=r"dev-set\.csv is a file of the dataset's own"):
        convert("videomem", tmp_path, labels, ConvertConfig())
    assert labels.read_bytes() == before


def test_a_label_file_that_is_there_twice_is_refused(tmp_path):
    memento10k(tmp_path)
    touched(tmp_path, "old/memento_val_data.json")
    message = refusal("memento10k", tmp_path)
    assert f"{tmp_path}/memento_val_data.json and {tmp_path}/old/memento_val_data.json" in message


# --- the command ---


def test_the_command_prints_the_manifest_on_stdout_and_counts_or_one_error_on_stderr(tmp_path):
    memento10k(tmp_path)
    (tmp_path / "videos/made-up-1@c_1.mp4").unlink()
    result = run("manifest", "from", "memento10k", tmp_path, "-o", tmp_path / "m.csv")
    assert result.exit_code == 0
    assert result.stdout == f"{tmp_path}/m.csv\n"
    lines = [line.split() for line in result.stderr.splitlines()]
    assert lines[:4] == [
        ["split", "listed", "found", "missing", "unlabelled", "written"],
        ["train", "3", "2", "1", "0", "2"],
        ["dev", "2", "2", "0", "0", "2"],
        ["test", "2", "2", "0", "2", "2"],
    ]
    assert "missing, left out, unless --keep-missing: 1 video: made-up-1@c_1" in result.stderr
    keep = ["-o", tmp_path / "m.csv", "--keep-missing"]
    result = run("manifest", "from", "memento10k", tmp_path, *keep)
    assert "missing, kept: 1 video: made-up-1@c_1" in result.stderr
    result = run("manifest", "from", "memento10k", tmp_path / "none", "-o", tmp_path / "m.csv")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: {tmp_path}/none is not there; give the folder that")
    assert result.stderr.count("\n") == 1


def test_the_command_prints_the_same_as_json(tmp_path):
    videomem(tmp_path)
    touched(tmp_path, "stranger.mp4")
    how = ["-o", tmp_path / "m.csv", "--target", "long-term", "--seed", "5"]
    summary = told("manifest", "from", "videomem", tmp_path, *how)
    counted = {"listed": 14, "found": 14, "missing": 0, "unlabelled": 0, "written": 14}
    assert summary["splits"][0] == {"split": "train"} | counted
    assert summary["unlisted"] == [f"{tmp_path}/stranger.mp4"]
    assert "split by memfeat with seed 5" in summary["dataset"]


def test_the_commands_help_names_every_format_its_files_and_targets():
    page = run("manifest", "from", "--help").stdout
    for name in FORMATS:
        assert f"{name}: {FORMATS.get(name).about}" in page
        assert f"--target {' or '.join(FORMATS.get(name).targets)}" in page


def test_the_time_of_a_conversion_grows_no_faster_than_its_videos(tmp_path):
    videomem(tmp_path, (3_000, 0, 0))
    start = time.process_time()
    _, manifest = converted("videomem", tmp_path)
    assert time.process_time() - start < 1.5  # as ten thousand in five seconds
    assert len(manifest.records) == 3_000
