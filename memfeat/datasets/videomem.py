"""VideoMem as MediaEval 2018 and 2019 handed it out (Cohendet et al. 2019)."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

from memfeat.datasets.folder import Folder
from memfeat.datasets.formats import FORMATS, Format, Labels, ListedVideo, csv_videos, label_files
from memfeat.errors import ManifestError
from memfeat.storage.names import stem

LABELS = "ground-truth_dev-set.csv"
TEST_LABELS = "ground-truth_test-set.csv"
TEST_LISTS = ("test-set_list.txt", "test-set_videos-captions.txt", "test-set_video-captions.txt")


@FORMATS.register("videomem")
class VideoMem(Format):
    """One file of 8,000 scored videos, not divided into train and dev, and perhaps a test list."""

    about: ClassVar[str] = f"{LABELS} and, if there, {TEST_LABELS} or {TEST_LISTS[0]}"
    targets: ClassVar[Mapping[str, str]] = {
        "short-term": "short-term score",
        "long-term": "long-term score",
    }
    has_splits: ClassVar[bool] = False

    def read(self, folder: Folder, target: str) -> Labels:
        """Read the scores and the organisers' test list, if it is there; see `Format.read`."""
        files = list(label_files(folder, {"train": (LABELS,)}).values())
        columns = {
            "video_id": "video",
            "score": f"{target}_memorability",
            "n_annotations": f"nb_{target}_annotations",
        }
        videos = list(csv_videos(files[0], None, columns))
        notes = []
        if (scored := folder.file(TEST_LABELS)) is not None:
            files.append(scored)
            videos += csv_videos(scored, "test", columns)
        elif (listed := folder.file(*TEST_LISTS)) is not None:
            files.append(listed)
            videos += _unlabelled(listed)
            notes.append(f"test: the videos of {listed.name}, which have no scores")
        return Labels(
            f"VideoMem, {self.targets[target]}", tuple(files), tuple(videos), tuple(notes)
        )


def _unlabelled(path: Path) -> Iterator[ListedVideo]:
    """Read a name from the start of each line, up to a tab, comma or space."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path} is not UTF-8: {error.reason}; save it as UTF-8") from error
    for number, line in enumerate(text.splitlines(), 1):
        words = line.replace(",", " ").split()
        if words:
            yield ListedVideo(f"{path}, line {number}", stem(words[0]), (words[0],), "test")
