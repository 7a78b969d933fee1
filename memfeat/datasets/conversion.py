"""From label files to a manifest: finds the videos, checks the rows, counts what is left out."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from memfeat.config import ConvertConfig, Split
from memfeat.datasets.folder import Folder
from memfeat.datasets.formats import FORMATS, Format, Labels, ListedVideo
from memfeat.datasets.splits import with_splits
from memfeat.errors import ConfigError, ManifestError, counted
from memfeat.manifest import SPLITS, VideoRecord, explain, folded_id, write_manifest
from memfeat.registry import unknown_name
from memfeat.storage.names import stem
from memfeat.storage.tables import SUFFIXES, parse_number


@dataclass(frozen=True)
class SplitCount:
    """Numbers of videos of one split.

    Attributes:
        split: its name.
        listed: named by the label files.
        found: of those listed, with a file.
        missing: of those listed, without one.
        unlabelled: of those listed, without a score.
        written: rows of the manifest.
    """

    split: Split
    listed: int
    found: int
    missing: int
    unlabelled: int
    written: int


@dataclass(frozen=True)
class Conversion:
    """What a conversion read, wrote and left out.

    Attributes:
        manifest: the file written.
        dataset: source, score and label version, as in the manifest.
        labels: the files read.
        splits: one entry each.
        missing: ids of listed videos whose file was not found.
        unlisted: videos in the folder that no label file names; they are left out.
        notes: anything else the user should know.
    """

    manifest: Path
    dataset: str
    labels: tuple[Path, ...]
    splits: tuple[SplitCount, ...]
    missing: tuple[str, ...]
    unlisted: tuple[Path, ...]
    notes: tuple[str, ...]


def convert(name: str, source: Path, output: Path, config: ConvertConfig) -> Conversion:
    """Write the manifest of a dataset whose label files are in `source`.

    Videos that are listed but missing are left out, unless asked for; so are videos that no label
    file lists. A format without splits gets seeded ones.

    Raises:
        UnknownNameError: no such format or target.
        ConfigError: a seed for a format that has its own splits.
        ManifestError: an output of unknown suffix or that is a label file, label files missing or
            malformed, no video found, or two files for one video; names file, row, column, value.
    """
    form = FORMATS.get(name)(config)
    target = config.target or next(iter(form.targets))
    if target not in form.targets:
        raise unknown_name("target", target, form.targets)
    if output.suffix.lower() not in SUFFIXES:
        raise ManifestError(
            f"cannot write {output}: name a file that ends in {', '.join(SUFFIXES)}"
        )
    folder = Folder(source)
    labels = _read(name, form, folder, target)
    if not labels.videos:
        raise ManifestError(f"{labels.files[0]} lists no videos")
    inputs = (*labels.files, *filter(None, [config.splits]))
    if output.exists() and any(path.exists() and output.samefile(path) for path in inputs):
        raise ManifestError(f"{output} is a file of the dataset's own; name another for --output")
    _refuse_duplicates(labels.videos)
    videos, origin, split_notes = with_splits(name, form, labels)
    video_folder = folder if config.videos is None else Folder(config.videos)
    paths = _find(videos, video_folder)
    of_frames = sum(path.is_dir() for path in paths.values())
    frame_notes = [
        f"{counted(of_frames, 'folder')} of frames among the videos: extract with --fps"
    ] * (of_frames > 0)
    dataset = f"{labels.title}, labels {_digest(labels.files)}{origin}"
    missing_folder = video_folder.path if config.keep_missing else None
    records, notes = _records(videos, paths, dataset, missing_folder)
    if not paths and not config.keep_missing:
        raise ManifestError(
            f"none of the {len(videos)} listed videos is in {video_folder.path}, which holds "
            f"{counted(len(video_folder.videos), 'video')}; {videos[0].names[0]!r} is the first "
            "wanted. Give "
            "the folder of the videos with --videos; or, to use features made elsewhere, keep the "
            "rows with --keep-missing"
        )
    write_manifest(output, records)
    return Conversion(
        manifest=output,
        dataset=dataset,
        labels=labels.files,
        splits=tuple(_count(split, videos, paths, records) for split in SPLITS),
        missing=tuple(video.video_id for video in videos if video.video_id not in paths),
        unlisted=_unlisted(video_folder, labels.videos, paths),
        notes=(*labels.notes, *notes, *split_notes, *frame_notes),
    )


def _read(name: str, form: Format, folder: Folder, target: str) -> Labels:
    takers = {setting: other for other in FORMATS for setting in FORMATS.get(other).takes}
    for setting, other in takers.items():
        if setting not in form.takes and (given := getattr(form.config, setting)) is not None:
            raise ConfigError(
                f"{setting} = {given!r} has no use: format {other!r} takes it, {name!r} does not"
            )
    return form.read(folder, target)


def _refuse_duplicates(videos: Sequence[ListedVideo]) -> None:
    seen: dict[str, ListedVideo] = {}
    for video in videos:
        first = seen.setdefault(folded_id(video.video_id), video)
        if first is not video:
            column = video.columns.get("video_id", "video_id")
            spelling = "" if first.video_id == video.video_id else f", as {first.video_id!r}"
            raise ManifestError(
                f"{video.location}, column {column}: {video.video_id!r} is also at "
                f"{first.location}{spelling}; a video is listed once"
            )


def _find(videos: Sequence[ListedVideo], folder: Folder) -> dict[str, Path]:
    """Return the files of those videos that have one, by id."""
    paths: dict[str, Path] = {}
    users: dict[Path, ListedVideo] = {}
    for video in videos:
        try:
            path = folder.video(video.names)
        except ManifestError as error:
            raise ManifestError(f"{video.location}: {error}") from error
        if path is None:
            continue
        user = users.setdefault(path, video)
        if user is not video:
            where = f"as it is at {user.location}"
            raise ManifestError(f"{video.location}: its file is {path}, {where}")
        paths[video.video_id] = path.absolute()
    return paths


def _records(
    videos: Sequence[ListedVideo],
    paths: Mapping[str, Path],
    dataset: str,
    missing_folder: Path | None,
) -> tuple[list[VideoRecord], list[str]]:
    """Check every row; return the records to write, in order, and notes.

    Videos without a path are written as files of `missing_folder`, or left out if it is None.
    """
    records, problems = [], []
    odd_counts: Counter[str] = Counter()
    for video in videos:
        count = _whole_number(video.n_annotations)
        if count is None and video.n_annotations not in (None, ""):
            odd_counts[f"{video.columns['n_annotations']} is {video.n_annotations!r}"] += 1
        path = paths.get(video.video_id)
        values = {
            "video_id": video.video_id,
            "path": path or Path(missing_folder or "", *video.names[:1]).absolute(),
            "score": video.score,
            "split": video.split,
            "dataset": dataset,
            "n_annotations": count,
            "caption": video.caption,
            **video.texts,
            "group": video.group,
        }
        try:
            record = VideoRecord.model_validate(values)
        except ValidationError as error:
            problems += [
                f"{video.location}, column {video.columns.get(field, field)}: {reason}"
                for field, reason in explain(error)
            ]
        else:
            records += [record] if path or missing_folder else []
    if problems:
        more = f" ({len(problems) - 1} more problems)" if len(problems) > 1 else ""
        raise ManifestError(problems[0] + more)
    return records, [f"{odd}, not a count: left out" for odd, _ in odd_counts.most_common(1)]


def _whole_number(value: Any) -> int | None:
    try:
        number = parse_number(str(value))
    except ValueError:
        return None
    return int(number) if number >= 0 and number.is_integer() else None


def _count(
    split: Split,
    videos: Sequence[ListedVideo],
    paths: Mapping[str, Path],
    records: Sequence[VideoRecord],
) -> SplitCount:
    listed = [video for video in videos if video.split == split]
    found = sum(video.video_id in paths for video in listed)
    return SplitCount(
        split=split,
        listed=len(listed),
        found=found,
        missing=len(listed) - found,
        unlabelled=sum(video.is_unlabelled for video in listed),
        written=sum(record.split == split for record in records),
    )


def _unlisted(
    folder: Folder, listed: Sequence[ListedVideo], paths: Mapping[str, Path]
) -> tuple[Path, ...]:
    known = {stem(name) for video in listed for name in (video.video_id, *video.names)}
    used = {path.name for path in paths.values()}
    return tuple(
        path for path in folder.videos if path.name not in used and stem(path.name) not in known
    )


def _digest(files: Sequence[Path]) -> str:
    """Return eight digits that differ between versions of the label files."""
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:8]
