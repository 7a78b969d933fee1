"""Base class of label formats, and readers of the CSV and JSON files they consist of."""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from memfeat.config import ConvertConfig, Split
from memfeat.datasets.folder import Folder
from memfeat.errors import ManifestError, short_repr
from memfeat.registry import Registry
from memfeat.storage import read_rows
from memfeat.storage.names import stem


@dataclass(frozen=True)
class ListedVideo:
    """A video as its label file lists it, unchecked.

    Attributes:
        location: file and row, for messages.
        video_id: its id in the manifest.
        names: what its file may be called, best first: names, paths or URLs.
        split: None where the format leaves it open.
        score, n_annotations: the cells as read; None or empty where there is none.
        caption: sentences about the video.
        texts: others, by the manifest's column: `title`, `description`, `transcript`.
        group: what it shares with others, such as a channel.
        columns: the file's own names of `video_id`, `score` and `n_annotations`, for messages.
    """

    location: str
    video_id: str
    names: tuple[str, ...]
    split: Split | None
    score: Any = None
    n_annotations: Any = None
    caption: str = ""
    texts: Mapping[str, str] = field(default_factory=dict)
    group: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_unlabelled(self) -> bool:
        """Whether there is no score."""
        return self.score in (None, "")


@dataclass(frozen=True)
class Labels:
    """What a format's label files say.

    Attributes:
        title: dataset and score in words.
        files: the files read.
        videos: all that they list, in order.
        notes: anything else the user should know.
    """

    title: str
    files: tuple[Path, ...]
    videos: tuple[ListedVideo, ...]
    notes: tuple[str, ...] = ()


class Format(ABC):
    """Base of all formats. To add one, derive from it and register the class.

    Attributes:
        about: the files it reads, for the command's help.
        targets: description of each score to choose from, by name; the first is the default.
        has_splits: whether the files say which video is in which split.
        takes: the settings that it takes beyond those that all formats do.
        config: the values of these.
    """

    about: ClassVar[str]
    targets: ClassVar[Mapping[str, str]]
    has_splits: ClassVar[bool] = True
    takes: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config: ConvertConfig) -> None:
        self.config = config

    @abstractmethod
    def read(self, folder: Folder, target: str) -> Labels:
        """Read the label files in `folder`.

        Args:
            folder: holds them, at any depth.
            target: one of `targets`.

        Raises:
            ConfigError: a setting that the format needs is missing.
            ManifestError: a file is missing or malformed; names file, row and column.
        """


FORMATS: Registry[type[Format]] = Registry("format")


def label_files(folder: Folder, names: Mapping[Split, Sequence[str]]) -> dict[Split, Path]:
    """Find the label file of each split, under the first of its names that is there.

    Raises:
        ManifestError: none is there, or one is there twice.
    """
    found = {split: folder.file(*choices) for split, choices in names.items()}
    files = {split: path for split, path in found.items() if path is not None}
    if not files:
        wanted = ", ".join(name for choices in names.values() for name in choices)
        others = [path.name for path in folder.files if path.suffix in {".csv", ".json", ".txt"}]
        there = f", but holds {', '.join(others[:8])}" if others else ""
        raise ManifestError(f"{folder.path} has none of the label files {wanted}{there}")
    return files


def csv_rows(path: Path, required: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield each row of a CSV file as (file and line, stripped cells by column).

    Raises:
        ManifestError: as `memfeat.storage.read_rows`.
    """
    for line, row in read_rows(path, required, None):
        yield f"{path}, line {line}", {name: cell.strip() for name, cell in row.items()}


def csv_videos(
    path: Path, split: Split | None, columns: Mapping[str, str], *, is_scored: bool = True
) -> Iterator[ListedVideo]:
    """Yield a CSV file's videos.

    Args:
        path: the file.
        split: of all of them, if the file tells.
        columns: its names of `video_id`, `score`, and, if there, `n_annotations` and `url`.
        is_scored: whether it has to have scores.

    Raises:
        ManifestError: as `csv_rows`.
    """
    name, score = columns["video_id"], columns["score"]
    for location, row in csv_rows(path, (name, score) if is_scored else (name,)):
        names = row[name], row.get(columns.get("url", ""), "")
        yield ListedVideo(
            location=location,
            video_id=stem(row[name]),
            names=tuple(each for each in names if stem(each)),
            split=split,
            score=row.get(score),
            n_annotations=row.get(columns["n_annotations"]),
            columns=columns,
        )


def json_records(path: Path, required: Sequence[str]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield each record of a JSON list or object as (file and record, its key or "", record).

    Raises:
        ManifestError: not JSON, not records, or a required key that no record has.
    """
    try:
        content = json.loads(path.read_bytes().decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"{path} is not JSON in UTF-8: {error}") from error
    if isinstance(content, dict):
        records = [(f"{path}, record {key!r}", key, record) for key, record in content.items()]
    elif isinstance(content, list):
        records = [(f"{path}, record {n}", "", record) for n, record in enumerate(content, 1)]
    else:
        raise ManifestError(
            f"{path}: {short_repr(content)} is neither a list nor an object of records"
        )
    keys: dict[str, None] = {}
    for location, _, record in records:
        if not isinstance(record, dict):
            raise ManifestError(f"{location}: {short_repr(record)} is not an object {{...}}")
        keys |= dict.fromkeys(record)
    for key in required:
        if key not in keys:
            found = ", ".join(list(keys)[:20]) or "none"
            raise ManifestError(f"{path}: no record has the key {key!r}; keys found: {found}")
    yield from records
