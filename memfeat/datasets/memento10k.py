"""Memento10k's label files: its authors' (Newman et al. 2020), and MediaEval's of 2021 and 2022."""

from collections.abc import Mapping
from typing import Any, ClassVar

from memfeat.config import Split
from memfeat.datasets.folder import Folder
from memfeat.datasets.formats import (
    FORMATS,
    Format,
    Labels,
    ListedVideo,
    csv_videos,
    json_records,
    label_files,
)
from memfeat.errors import ManifestError, counted
from memfeat.manifest import CAPTIONS
from memfeat.storage.names import stem

SCORED_LAG = 80  # videos, after which `mem_score` is the share of people who recognise one


@FORMATS.register("memento10k")
class Memento10k(Format):
    """A JSON list of records for each split, or an object of them by id; test has no scores."""

    about: ClassVar[str] = "memento_{train,val,test}_data.json"
    targets: ClassVar[Mapping[str, str]] = {"mem_score": "mem_score of the native release"}
    files: ClassVar[Mapping[Split, tuple[str, ...]]] = {
        "train": ("memento_train_data.json",),
        "dev": ("memento_val_data.json",),
        "test": ("memento_test_data.json",),
    }
    takes: ClassVar[tuple[str, ...]] = ("lag",)
    unused: ClassVar = {"url", "alpha", "actions"}

    def read(self, folder: Folder, target: str) -> Labels:
        """Read the JSON files that are there, for the score at a lag; see `Format.read`."""
        lag = self.config.lag
        files = label_files(folder, self.files)
        videos, notes = [], []
        for split, path in files.items():
            odd: set[str] = set()
            for location, key, record in json_records(path, () if split == "test" else (target,)):
                score = _score(location, record, target, lag)
                videos.append(_json_video(location, key, record, split, score))
                odd |= record.keys() - {"filename", "captions", target, *self.unused}
            if odd:
                notes.append(f"{path.name} also has {', '.join(sorted(odd))}: not used")
        title = f"Memento10k, {self.targets[target]}"
        if lag is not None:
            title += f" at a lag of {lag:g} videos"
            bounded = sum(video.score in (0.0, 1.0) for video in videos)
            notes += [f"{counted(bounded, 'score')} of 0 or 1 at this lag, where they end"] * (
                bounded > 0
            )
        return Labels(title, tuple(files.values()), tuple(videos), tuple(notes))


def score_at(lag: float, score: float, alpha: float) -> float:
    """Return the share of people who recognise a video after `lag` others, within [0, 1].

    It decays linearly from the score, which is that after 80, by `alpha` a video. So the authors'
    own code has it (github.com/a-newman/memento, losses.py), for lags of 0 to 180.
    """
    return min(1.0, max(0.0, score + alpha * (lag - SCORED_LAG)))


def _score(location: str, record: Mapping[str, Any], target: str, lag: float | None) -> Any:
    score, alpha = record.get(target), record.get("alpha")
    if lag is None or score is None:
        return score
    if not isinstance(score, int | float) or not isinstance(alpha, int | float):
        raise ManifestError(
            f"{location}: {target} is {score!r} and alpha {alpha!r}; both have to be numbers for a "
            "score at a lag"
        )
    return score_at(lag, score, alpha)


def _json_video(
    location: str, key: str, record: Mapping[str, Any], split: Split, score: Any
) -> ListedVideo:
    name, url = record.get("filename", key), record.get("url")
    if not isinstance(name, str) or not name.strip():
        raise ManifestError(
            f"{location}, key 'filename': {name!r} is not a file's name; keys found: "
            f"{', '.join(record)}"
        )
    captions = record.get("captions") or ""
    sentences = captions if isinstance(captions, list) else [captions]
    return ListedVideo(
        location=location,
        video_id=stem(name),
        names=(name, url) if isinstance(url, str) and stem(url) else (name,),
        split=split,
        score=score,
        caption=CAPTIONS.join(str(sentence).strip() for sentence in sentences),
        columns={"video_id": "filename", "score": "mem_score"},
    )


@FORMATS.register("memento10k-mediaeval")
class Memento10kMediaEval(Format):
    """A CSV file for each split, with normalised (the official target) and raw scores.

    The test set's list has no scores, or is missing.
    """

    about: ClassVar[str] = "train_scores.csv, dev_scores.csv and, if there, test_scores.csv"
    targets: ClassVar[Mapping[str, str]] = {
        "normalized": "normalised short-term score",
        "raw": "raw short-term score",
    }
    files: ClassVar[Mapping[Split, tuple[str, ...]]] = {
        "train": ("train_scores.csv",),
        "dev": ("dev_scores.csv",),
        "test": ("test_scores.csv", "test_video_urls.csv"),
    }

    def read(self, folder: Folder, target: str) -> Labels:
        """Read the CSV files that are there; see `Format.read`."""
        files = label_files(folder, self.files)
        columns = {
            "video_id": "video_id",
            "score": f"scores_{target}_short_term",
            "n_annotations": "annotations_short_term",
            "url": "video_url",
        }
        videos = [
            video
            for split, path in files.items()
            for video in csv_videos(path, split, columns, is_scored=split != "test")
        ]
        title = f"Memento10k, MediaEval 2021-22, {self.targets[target]}"
        return Labels(title, tuple(files.values()), tuple(videos))
