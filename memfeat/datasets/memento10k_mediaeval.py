"""Memento10k as MediaEval 2021 and 2022 handed it out: a CSV file for each split."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

from memfeat.config import Split
from memfeat.datasets.folder import Folder, stem
from memfeat.datasets.formats import (
    FORMATS,
    Format,
    Labels,
    ListedVideo,
    csv_rows,
    label_files,
)

FILES: Mapping[Split, tuple[str, ...]] = {
    "train": ("train_scores.csv",),
    "dev": ("dev_scores.csv",),
    "test": ("test_scores.csv", "test_video_urls.csv"),
}
COUNT = "annotations_short_term"


@FORMATS.register("memento10k-mediaeval")
class Memento10kMediaEval(Format):
    """Scores raw and, the official target, normalised; the test list has none, or is missing."""

    about: ClassVar[str] = "train_scores.csv, dev_scores.csv and, if there, test_scores.csv"
    targets: ClassVar[Mapping[str, str]] = {
        "normalized": "normalised short-term score",
        "raw": "raw short-term score",
    }

    def read(self, folder: Folder, target: str) -> Labels:
        """Read the CSV files that are there; see `Format.read`."""
        files = label_files(folder, FILES)
        score = f"scores_{target}_short_term"
        videos = [video for split, path in files.items() for video in _videos(path, split, score)]
        title = f"Memento10k, MediaEval 2021-22, {self.targets[target]}"
        return Labels(title, tuple(files.values()), tuple(videos))


def _videos(path: Path, split: Split, score: str) -> Iterator[ListedVideo]:
    required = ("video_id",) if split == "test" else ("video_id", score)
    for place, row in csv_rows(path, required):
        url = row.get("video_url", "")
        yield ListedVideo(
            place=place,
            video_id=stem(row["video_id"]),
            names=tuple(name for name in (row["video_id"], url) if stem(name)),
            split=split,
            score=row.get(score),
            n_annotations=row.get(COUNT),
            columns=(("score", score), ("n_annotations", COUNT)),
        )
