"""A dataset's folder: finds label files by name and videos by stem."""

import os
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath

from memfeat.errors import ManifestError
from memfeat.storage.names import PICTURE_SUFFIXES, VIDEO_SUFFIXES, spellings, stem_key


class Folder:
    """The files below a folder, at any depth; links are followed, hidden files left out.

    Raises:
        ManifestError: there is no such folder.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            what = "is a file" if path.exists() else "is not there"
            raise ManifestError(f"{path} {what}; give the folder that holds the dataset's files")
        self.path = path
        self.files = tuple(sorted(_walk(path)))

    def file(self, *names: str) -> Path | None:
        """Return the file of the first of these names that exists.

        Raises:
            ManifestError: two files have that name.
        """
        for name in names:
            found = _distinct(path for path in self.files if path.name == name)
            if len(found) > 1:
                raise ManifestError(
                    f"{found[0]} and {found[1]} have the same name; give a folder with one of them"
                )
            if found:
                return found[0]
        return None

    @cached_property
    def videos(self) -> tuple[Path, ...]:
        """The files whose suffix is a video's."""
        return tuple(path for path in self.files if path.suffix.lower() in VIDEO_SUFFIXES)

    def video(self, names: Sequence[str]) -> Path | None:
        """Find a video by its stem, whatever its folder and its suffix in the labels.

        Of several with one stem, the one whose folders, then whose full name match is taken.
        Stems of digits are numbers: `493` is `00493`. Where there is no such file, it may be a
        folder of that name with pictures, its frames.

        Args:
            names: what the video may be called, best first: a name, a path, or a URL.

        Raises:
            ManifestError: several videos fit equally well.
        """
        every = [spelling for name in names for spelling in spellings(name)]
        for by_stem in (self._videos_by_stem, self._frames_by_stem):
            for spelling in every:
                if found := by_stem.get(stem_key(spelling)):
                    return _closest(spelling, found)
        return None

    @cached_property
    def _videos_by_stem(self) -> dict[str, list[Path]]:
        return _by_stem(self.videos)

    @cached_property
    def _frames_by_stem(self) -> dict[str, list[Path]]:
        pictures = (path for path in self.files if path.suffix.lower() in PICTURE_SUFFIXES)
        return _by_stem(dict.fromkeys(path.parent for path in pictures))


def _by_stem(paths: Iterable[Path]) -> dict[str, list[Path]]:
    by_stem: dict[str, list[Path]] = {}
    for path in paths:
        by_stem.setdefault(stem_key(path.name), []).append(path)
    return by_stem


def _walk(folder: Path) -> Iterator[Path]:
    seen = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        folders[:] = [] if real in seen else sorted(name for name in folders if name[0] != ".")
        if real not in seen:
            yield from (Path(parent, name) for name in names if name[0] != ".")
        seen.add(real)


def _closest(name: str, found: Sequence[Path]) -> Path:
    if len(found) == 1:
        return found[0]
    listed = PurePosixPath(name)

    def likeness(path: Path) -> tuple[int, bool]:
        parents = zip(reversed(listed.parts[:-1]), reversed(path.parts[:-1]), strict=False)
        shared = 0
        for one, other in parents:
            if one != other:
                break
            shared += 1
        return shared, path.name == listed.name

    best = max(map(likeness, found))
    paths = _distinct(path for path in found if likeness(path) == best)
    if len(paths) > 1:
        raise ManifestError(
            f"{name!r} may be {paths[0]} or {paths[1]}; move one away, or give the folder of the "
            "right ones with --videos"
        )
    return paths[0]


def _distinct(paths: Iterable[Path]) -> list[Path]:
    """Keep one path of each file that several links lead to."""
    return list({os.path.realpath(path): path for path in paths}.values())
