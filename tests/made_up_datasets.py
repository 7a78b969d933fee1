"""Folders laid out as the real datasets' are; every name, score and sentence is made up."""

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from clips import Pixels, write_clip

LONG = "made-up-9-9-9_a@b_" + "x" * 82 + "_7"  # 102 characters


@dataclass(frozen=True)
class MadeUp:
    """A folder, and what a manifest of it must say: score by video, split by video."""

    folder: Path
    scores: dict[str, float | None]
    splits: dict[str, str]


def pictures(number: int, frames: int = 5) -> list[Pixels]:
    """Draw blocks of colours that differ from video to video."""
    blocks = np.random.default_rng(number).integers(0, 256, (frames, 6, 8, 3), dtype=np.uint8)
    return list(blocks.repeat(8, axis=1).repeat(8, axis=2))


def touch(path: Path, number: int = 0) -> None:
    """Put an empty file there, for tests that never open it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def render(path: Path, number: int = 0) -> None:
    """Put a clip there: H.264, or VP8 in a .webm."""
    path.parent.mkdir(parents=True, exist_ok=True)
    codec = "libvpx" if path.suffix == ".webm" else "libx264"
    write_clip(path, pictures(number), codec=codec)


Put = Callable[[Path, int], None]


def score_of(number: int) -> float:
    return round(0.4 + (7 * number % 23) / 40, 4)


def memento10k(
    folder: Path, counts: Sequence[int] = (3, 2, 2), put: Put = touch, *, as_object: bool = False
) -> MadeUp:
    """The native files; the test split has no scores."""
    scores: dict[str, float | None] = {}
    splits: dict[str, str] = {}
    for split, name, count in zip(
        ("train", "dev", "test"), ("train", "val", "test"), counts, strict=True
    ):
        records = []
        for _ in range(count):
            number = len(scores)
            file = f"{LONG if number == 0 else f'made-up-{number}@c_{number}'}.mp4"
            put(folder / "videos" / file, number)
            video_id = file.removesuffix(".mp4")
            splits[video_id] = split
            scores[video_id] = None if split == "test" else score_of(number)
            record = {
                "filename": file,
                "url": f"http://nowhere.example/adult+male+singing/{file}",
                "alpha": -0.001,
                "captions": [f"thing {number} moves", f"a moving thing, {number}"],
                "actions": ["moving"],
            }
            records.append(record if split == "test" else record | {"mem_score": scores[video_id]})
        content = {str(n): each for n, each in enumerate(records)} if as_object else records
        (folder / f"memento_{name}_data.json").write_text(json.dumps(content))
    return MadeUp(folder, scores, splits)


def memento10k_mediaeval(
    folder: Path, counts: Sequence[int] = (3, 2, 2), put: Put = touch
) -> MadeUp:
    """The CSV files, with decay above 0, a URL after a space, and odd folder and file names."""
    scores: dict[str, float | None] = {}
    splits: dict[str, str] = {}
    for split, count in zip(("train", "dev", "test"), counts, strict=True):
        rows = []
        for _ in range(count):
            number = len(scores)
            file = f"{LONG if number == 0 else f'clip@{number}'}.mp4"
            put(folder / "Videos" / "adult+male+singing" / file, number)
            splits[str(number)] = split
            scores[str(number)] = None if split == "test" else score_of(number)
            row = [number, f" http://nowhere.example/v/adult+male+singing/{file}"]
            rows.append(row if split == "test" else [*row, 90, 0.25, scores[str(number)], 0.0003])
        header = "video_id,video_url,annotations_short_term,scores_raw_short_term,"
        header += "scores_normalized_short_term,decay_alpha"
        write_csv(
            folder / f"{split}_set" / f"{split}_scores.csv",
            header.split(",")[: len(rows[0])] if rows else header.split(","),
            rows,
        )
    return MadeUp(folder, scores, splits)


def videomem(folder: Path, counts: Sequence[int] = (14, 3, 3), put: Put = touch) -> MadeUp:
    """One file of scores after a BOM, listing .webm files that are .mp4, without splits."""
    scores: dict[str, float | None] = {}
    rows = []
    for number in range(sum(counts)):
        put(folder / "dev-set" / "sources" / f"video{number}.mp4", number)
        scores[f"video{number}"] = score_of(number)
        rows.append([f"video{number}.webm", score_of(number), 34, number % 2, 12])
    header = "video,short-term_memorability,nb_short-term_annotations,"
    header += "long-term_memorability,nb_long-term_annotations"
    path = folder / "dev-set" / "ground-truth" / "ground-truth_dev-set.csv"
    write_csv(path, header.split(","), rows, bom=True)
    return MadeUp(folder, scores, {})


CHANNELS = ("Tea @ Home", "Shoes, Inc.", "Käse", "a", "b")
VIDEM = (
    "id,url,channelName,channelUrl,categoryId,categoryName,title,description,thumbnailUrl,tags,"
    "durationString,durationSeconds,viewsCount,likesCount,dislikesCount,favouritesCount,"
    "commentsCount,engagementsCount,engagementRate,video_id,nb_annotations,memorability_score,"
    "brand_memorability"
)
WIDTH = 24  # of an advert's features


def youtube_id(number: int) -> str:
    return f"-Made_up{number:03d}"


def videm(folder: Path, counts: Sequence[int] = (14, 4), put: Put = touch) -> MadeUp:
    """Two lists with all columns, some with line breaks; the test set's has no scores.

    Every third advert is of the first channel. The last of either set has no video.
    """
    scores: dict[str, float | None] = {}
    splits: dict[str, str] = {}
    header = VIDEM.split(",")
    for part, count, columns in zip(("devset", "testset"), counts, (23, 20), strict=True):
        rows = []
        for place in range(count):
            number = len(scores)
            name = youtube_id(number)
            if place < count - 1:
                put(folder / part / "videos" / f"{name}.mp4", number)
            channel = number % 3 and number % len(CHANNELS)
            row: list[object] = [name, f"https://nowhere.example/watch?v={name}"]
            row += [CHANNELS[channel], f"https://nowhere.example/@{channel}", 24, "Entertainment"]
            row += [f"Made-up advert {number}", f'Says "buy",\nthen {number}.', "", "['x', 'y']"]
            row += ["PT1M", 60, *range(7), 1000 + number, 17]
            row += [score_of(number), "" if number == 1 else score_of(number + 5)]
            rows.append(row[:columns])
            scores[name] = score_of(number) if part == "devset" else None
            splits[name] = "train" if part == "devset" else "test"
        suffix = "_GT" if part == "devset" else ""
        write_csv(folder / part / f"{part}_videolist{suffix}.csv", header[:columns], rows)
    return MadeUp(folder, scores, splits)


def videm_extras(folder: Path, made: MadeUp) -> None:
    """Features of all adverts, three rows or a single one each, and transcripts of most."""
    for number, (name, split) in enumerate(made.splits.items()):
        rows = np.random.default_rng(number).standard_normal((3, WIDTH))
        part = "testset" if split == "test" else "devset"
        path = folder / part / "features" / "ViT" / f"{name}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, rows if number % 2 else rows[0])
        said = folder / f"{part}-stt" / f"{name}.txt"
        said.parent.mkdir(exist_ok=True)
        if number != 2:
            said.write_text(f"Buy number {number}. " * (1 + number % 4))


def movie(folder: Path, counts: Sequence[int] = (14, 3), put: Put = touch) -> MadeUp:
    """A list of scores, and one of excerpts without any; the columns' names are ours."""
    scores: dict[str, float | None] = {}
    splits: dict[str, str] = {}
    for split, count in zip(("train", "test"), counts, strict=True):
        rows = []
        for _ in range(count):
            number = len(scores)
            put(folder / "excerpts" / f"film_{number}.mkv", number)
            scores[f"film_{number}"] = score_of(number) if split == "train" else None
            splits[f"film_{number}"] = split
            rows.append([f"film_{number}.mkv", f"Film {number // 3}", score_of(number)])
        columns = 3 if split == "train" else 2
        header = ["excerpt", "film", "rating"][:columns]
        write_csv(folder / f"{split}.csv", header, [row[:columns] for row in rows])
    return MadeUp(folder, scores, splits)


MAKERS: dict[str, Callable[..., MadeUp]] = {
    "memento10k": memento10k,
    "memento10k-mediaeval": memento10k_mediaeval,
    "videomem": videomem,
    "videm": videm,
    "movie": movie,
}
OPTIONS = {  # that a format cannot do without
    "movie": {"id_column": "excerpt", "score_column": "rating", "group_column": ""},
}


def write_csv(
    path: Path, header: Sequence[str], rows: Sequence[Sequence[object]], *, bom: bool = False
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8-sig" if bom else "utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path
