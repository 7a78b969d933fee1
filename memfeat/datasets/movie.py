"""Scores of film excerpts, and other people's tables, whose columns have to be named."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

from memfeat.config import ConvertConfig
from memfeat.datasets.folder import Folder
from memfeat.datasets.formats import FORMATS, Format, Labels, ListedVideo, csv_rows
from memfeat.errors import ConfigError, ManifestError
from memfeat.storage import read_rows
from memfeat.storage.names import stem


@FORMATS.register("movie")
class Movie(Format):
    """MediaEval 2025's and 2026's movie memorability, of which no description was found.

    It is assumed that each CSV with the column of ids lists videos; that those with a score are to
    learn from, and all others are the test set.
    """

    about: ClassVar[str] = ".csv files with the columns --id-column and, if scored, --score-column"
    targets: ClassVar[Mapping[str, str]] = {"score": "movie memorability"}
    has_splits: ClassVar[bool] = False
    takes: ClassVar[tuple[str, ...]] = ("id_column", "score_column", "group_column")

    def read(self, folder: Folder, target: str) -> Labels:
        """Read the CSV files that have the columns named; see `Format.read`."""
        tables = {path: _columns(path) for path in folder.files if path.suffix.lower() == ".csv"}
        held = [f"{p.name} ({', '.join(each)})" if each else p.name for p, each in tables.items()]
        found = ", ".join(held) or "no .csv file"
        name, score = self.config.id_column, self.config.score_column
        if not name or not score:
            raise ConfigError(
                "the columns of movie memorability's files are not known: name them by --id-column "
                f"and --score-column; {folder.path} holds {found}"
            )
        files = [path for path, names in tables.items() if name in names]
        if not any(score in tables[path] for path in files):
            raise ManifestError(
                f"{folder.path} has none of the label files .csv with the columns {name!r} and "
                f"{score!r}, but holds {found}"
            )
        videos = [video for path in files for video in _videos(path, self.config)]
        tested = sum(video.split == "test" for video in videos)
        listed = ", ".join(path.name for path in files)
        notes = (
            f"assumed, for want of a description: {listed} list the videos in column {name!r}; the "
            f"{len(videos) - tested} with a number in {score!r} are to learn from, the {tested} "
            "without are the test set",
        )
        title = f"{self.targets[target]}, column {score}"
        return Labels(title, tuple(files), tuple(videos), notes)


def _columns(path: Path) -> list[str]:
    return next((list(row) for _, row in read_rows(path, (), None)), [])


def _videos(path: Path, config: ConvertConfig) -> Iterator[ListedVideo]:
    name, score = str(config.id_column), str(config.score_column)
    group = (config.group_column,) if config.group_column else ()
    for location, row in csv_rows(path, (name, *group)):
        yield ListedVideo(
            location=location,
            video_id=stem(row[name]),
            names=(row[name],),
            split=None if row.get(score) else "test",
            score=row.get(score),
            group="".join(row[each] for each in group),
            columns={"video_id": name, "score": score},
        )
