"""VIDEM, adverts from YouTube, as MediaEval 2025 and 2026 hand it out."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

from memfeat.config import Split
from memfeat.datasets.folder import Folder
from memfeat.datasets.formats import FORMATS, Format, Labels, ListedVideo, csv_rows, label_files

LABELS = "devset_videolist_GT.csv"
TEST_LISTS = ("testset_videolist_GT.csv", "testset_videolist.csv")
FIRST_MINUTE = (
    "people saw at most the first 60 s of an advert, of which some last over an hour; so "
    "pipelines/videm.toml extracts with max_seconds = 60"
)


@FORMATS.register("videm")
class Videm(Format):
    """One list of scored adverts, not divided into train and dev, and one of the test set.

    An advert is called by its YouTube id, as features and transcripts are; its channel is its
    group.
    """

    about: ClassVar[str] = f"{LABELS} and, if there, {TEST_LISTS[1]}"
    targets: ClassVar[Mapping[str, str]] = {
        "memorability_score": "memorability of the advert",
        "brand_memorability": "memorability of the brand",
    }
    has_splits: ClassVar[bool] = False

    def read(self, folder: Folder, target: str) -> Labels:
        """Read the scores and the test set's list, if it is there; see `Format.read`."""
        files = list(label_files(folder, {"train": (LABELS,)}).values())
        videos = list(_videos(files[0], None, target))
        notes = [FIRST_MINUTE]
        if (listed := folder.file(*TEST_LISTS)) is not None:
            files.append(listed)
            videos += _videos(listed, "test", target)
        else:
            notes.append(f"no test set: there is none of {' and '.join(TEST_LISTS)}")
        title = f"VIDEM, MediaEval 2025-26, {self.targets[target]}"
        return Labels(title, tuple(files), tuple(videos), tuple(notes))


def _videos(path: Path, split: Split | None, target: str) -> Iterator[ListedVideo]:
    for location, row in csv_rows(path, ("id",) if split else ("id", target)):
        yield ListedVideo(
            location=location,
            video_id=row["id"],
            names=(row["id"],),
            split=split,
            score=row.get(target),
            n_annotations=row.get("nb_annotations"),
            texts={name: row.get(name, "") for name in ("title", "description")},
            group=row.get("channelName") or row.get("channelUrl", ""),
            columns={"video_id": "id", "score": target, "n_annotations": "nb_annotations"},
        )
