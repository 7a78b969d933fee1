"""The splits of listed videos: the format's, those of a list, or a seeded draw."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from memfeat.config import Split
from memfeat.datasets.formats import Format, Labels, ListedVideo, csv_rows
from memfeat.errors import ConfigError, ManifestError, counted
from memfeat.manifest import SPLITS
from memfeat.storage.names import stem

SHARES = {"train": 14, "dev": 3, "test": 3}  # of MediaEval 2022: 7,000, 1,500 and 1,500 videos
NO_GROUPS: Mapping[str, str] = {}
SPLIT_NAMES: Mapping[str, Split] = {
    **{split: split for split in SPLITS},
    "val": "dev",
    "validation": "dev",
}


def seeded_split(
    video_ids: Iterable[str],
    seed: int,
    splits: Sequence[Split] = SPLITS,
    groups: Mapping[str, str] = NO_GROUPS,
) -> dict[str, Split]:
    """Divide videos 14 : 3 : 3, as MediaEval 2022 did, or as nearly as whole groups allow.

    The draw depends on ids, groups by id, and seed alone.
    """

    def rank(name: str) -> bytes:
        return hashlib.sha256(f"{seed}/{name}".encode()).digest()

    def unit(video_id: str) -> str:
        return groups.get(video_id) or video_id

    ordered = sorted(video_ids, key=lambda each: (rank(unit(each)), rank(each)))
    starts = [i for i, (a, b) in enumerate(pairwise(ordered), 1) if unit(a) != unit(b)]
    total = sum(SHARES[split] for split in splits)
    drawn: dict[str, Split] = {}
    start, share = 0, 0
    for split in splits:
        share += SHARES[split]
        wanted = round(len(ordered) * share / total)
        stop = min((0, *starts, len(ordered)), key=lambda bound: abs(bound - wanted))
        drawn |= dict.fromkeys(ordered[start:stop], split)
        start = stop
    return drawn


def with_splits(
    name: str, form: Format, labels: Labels
) -> tuple[list[ListedVideo], str, list[str]]:
    """Give every video its split.

    Returns:
        The videos that have one; where the splits come from, as a suffix to the dataset's
        description, if not from the format; and notes for the user.

    Raises:
        ConfigError: a seed where none is needed.
        ManifestError: a list of splits that is malformed, or of other videos.
    """
    videos, config = labels.videos, form.config
    if config.seed is not None and (form.has_splits or config.splits):
        source = str(config.splits) if config.splits else f"format {name!r}"
        raise ConfigError(
            f"seed = {config.seed} has no use: {source} says which split a video is in"
        )
    if config.splits:
        return _listed_splits(videos, config.splits)
    seed = config.seed or 0
    open_ids = [video.video_id for video in videos if video.split is None]
    has_test = any(video.split == "test" for video in videos)
    groups = {video.video_id: video.group for video in videos if video.group}
    drawn = seeded_split(open_ids, seed, ("train", "dev") if has_test else SPLITS, groups)
    divided = [replace(video, split=video.split or drawn[video.video_id]) for video in videos]
    return divided, f", split by memfeat with seed {seed}" if open_ids else "", []


def _listed_splits(
    videos: Sequence[ListedVideo], path: Path
) -> tuple[list[ListedVideo], str, list[str]]:
    given = _read_splits(path)
    listed = [replace(video, split=given.get(video.video_id)) for video in videos]
    kept = [video for video in listed if video.split]
    if not kept:
        raise ManifestError(
            f"{path} names none of the {len(videos)} listed videos; "
            f"{videos[0].video_id!r} is the first of them"
        )
    unlisted = len(given.keys() - {video.video_id for video in videos})
    counts = {
        ("listed video", f"not in {path}: left out"): len(videos) - len(kept),
        ("video", f"of {path} in no label file"): unlisted,
    }
    notes = [f"{counted(count, one)} {what}" for (one, what), count in counts.items() if count]
    return kept, f", split of {path.name}", notes


def _read_splits(path: Path) -> dict[str, Split]:
    given: dict[str, Split] = {}
    for location, row in csv_rows(path, ("video", "split")):
        if row["split"] not in SPLIT_NAMES:
            raise ManifestError(
                f"{location}, column split: {row['split']!r} is not a split; write one of: "
                f"{', '.join(SPLIT_NAMES)}"
            )
        video_id, split = stem(row["video"]), SPLIT_NAMES[row["split"]]
        if given.setdefault(video_id, split) != split:
            raise ManifestError(
                f"{location}, column split: {video_id!r} is in {split}, and further up in "
                f"{given[video_id]}; a video has one"
            )
    return given
