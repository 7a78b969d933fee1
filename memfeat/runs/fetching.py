"""Runs that lie elsewhere, or are packed in one file: fetched once, checked, and kept.

A copy lies in `$XDG_CACHE_HOME/memfeat/remote/runs`, under a name that says where it came from and
in which version, and never changes. Deleting it costs nothing but fetching again.
"""

import errno
import hashlib
import os
import re
import shutil
import zlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile

from memfeat.config import TrainConfig, build
from memfeat.errors import ConfigError, RemoteError, RunError
from memfeat.runs.files import (
    CARD,
    CONFIG,
    KEPT,
    METRICS,
    PREDICTIONS,
    PROVENANCE,
    SUMS,
    fold_folders,
    read_object,
    read_text,
    seed_folders,
)
from memfeat.storage import (
    Location,
    Url,
    copies_folder,
    describe,
    fetch,
    list_files,
    local_copy,
    scratch_folder,
    sha256_of_file,
)

PACKED = ".zip"
NAMES = (CONFIG, *KEPT, PREDICTIONS, CARD, SUMS)
MEMBER = re.compile(rf"(seed-[0-9]+/)?(fold-[0-9]+/)?({'|'.join(map(re.escape, NAMES))})")
MOST_BYTES = 1 << 32  # of a run: a model of a million weights has four million
FETCHERS = 8  # threads
DIGITS = 12  # of a hash


def is_packed(location: Location) -> bool:
    """Return whether a path or URL names a packed file, and not a folder."""
    return location.suffix.lower() == PACKED


def local_run(location: Location) -> Path:
    """Return the folder of a run on this machine.

    A folder here is itself. A packed file, a remote folder or a remote packed file is copied, if
    the version that is there now has not been copied before. Where it cannot be reached, the last
    copy serves.

    Raises:
        RunError: it is no run, is too large, or differs from the checksums that were packed.
        RemoteError: it cannot be had; see `memfeat.storage.fetch`.
        OSError: this machine's disk is full.
    """
    if isinstance(location, Path) and not (is_packed(location) and location.is_file()):
        return location
    where = str(location.absolute() if isinstance(location, Path) else location)
    copies = copies_folder() / "runs"
    start = f"{re.sub(r'[^A-Za-z0-9+._-]', '_', location.name)[:60]}-{_digest(where)}-"
    try:
        folder = copies / (start + _digest(_version(location)))
    except RemoteError as error:
        before = sorted(copies.glob(f"{start}*"), key=lambda path: path.stat().st_mtime)
        if error.reason != "unreachable" or not before:
            raise
        return before[-1]
    if not folder.is_dir():
        with scratch_folder() as scratch:
            new = scratch / "run"
            new.mkdir()
            if is_packed(location):
                with local_copy(location) as archive:
                    _unpack(archive, new, location)
            elif isinstance(location, Url):
                _fetch_folder(location, new)
            _check(new, location)
            _place(new, folder)
    return folder


def write_sums(folder: Path) -> None:
    """Write the SHA-256 of each file of a run, in the format of `sha256sum`."""
    lines = [f"{sha256_of_file(folder / name)}  {name}\n" for name in _files(folder)]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:DIGITS]


def _version(location: Location) -> str:
    """Return what changes when a run does; of a folder the files at its top, which all runs have.

    Of a web server that gives no ETag that is the size alone.
    """
    if isinstance(location, Path):
        stat = location.stat()
        return f"{stat.st_size} {stat.st_mtime_ns}"
    if is_packed(location):
        return describe(location).version
    if location.is_web:
        raise RunError(
            f"{location} would be a folder of a web server, which cannot be listed; name a packed "
            f"file, as `memfeat run pack RUN -o mine{PACKED}` writes"
        )
    found = list_files(location)
    missing = {METRICS, CONFIG} - set(found)
    if missing:
        raise RunError(
            f"there is no complete run at {location}, for it holds no {min(missing)}; name the "
            f"folder of a run, or a packed file that ends in {PACKED}"
        )
    return " ".join(f"{name} {found[name].version}" for name in NAMES if name in found)


def _fetch_folder(url: Url, target: Path) -> None:
    def get(folders: Iterable[Path]) -> None:
        wanted = []
        for folder in folders:
            found = list_files(Url(f"{url}/{folder.as_posix()}") if folder.parts else url)
            sizes = [found[name].size or 0 for name in NAMES if name in found]
            _require_size(sum(sizes), url)
            wanted += [(folder / name).as_posix() for name in NAMES if name in found]
            (target / folder).mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(FETCHERS, thread_name_prefix="fetch") as pool:
            list(pool.map(lambda name: fetch(Url(f"{url}/{name}"), target / name), wanted))

    top = Path()
    get([top])
    try:
        config = build(TrainConfig, read_object(target / CONFIG), f"{url}/{CONFIG}")
    except ConfigError as error:
        raise RunError(str(error)) from error
    baseline = read_object(target / PROVENANCE).get("baseline")
    members = [top] if baseline else seed_folders(top, config)
    parts = [part for member in members for part in fold_folders(member, config)]
    get(folder for folder in dict.fromkeys([*members, *parts]) if folder != top)


def _unpack(archive: Path, target: Path, location: Location) -> None:
    try:
        with ZipFile(archive) as file:
            entries = [each for each in file.infolist() if MEMBER.fullmatch(each.filename)]
            _require_size(sum(each.file_size for each in entries), location)
            missing = {METRICS, CONFIG} - {each.filename for each in entries}
            if missing:
                raise RunError(
                    f"{location} holds no run: there is no {min(missing)} in it; make one with "
                    f"`memfeat run pack RUN -o mine{PACKED}`"
                )
            for each in entries:
                if each.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
                    raise BadZipFile("it is compressed in another way than deflate")
                path = target / each.filename
                path.parent.mkdir(parents=True, exist_ok=True)
                with file.open(each) as source, path.open("xb") as copy:
                    shutil.copyfileobj(source, copy)
    except FileExistsError as error:
        raise RunError(f"{location} is damaged: it holds a name twice; get it again") from error
    except (BadZipFile, zlib.error, EOFError, RuntimeError, ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # of an offset
            raise
        raise RunError(f"{location} is damaged: {error}; get it again") from error


def _require_size(size: int, location: Location) -> None:
    if size > MOST_BYTES:
        raise RunError(f"{location} holds {size} bytes; a run has {MOST_BYTES} at most")


def _files(folder: Path) -> list[str]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path.relative_to(folder).as_posix() for path in paths)


def _check(folder: Path, location: Location) -> None:
    """Compare files with the checksums that were packed with them; a run need not have any."""
    if not (folder / SUMS).is_file():
        return
    lines = read_text(folder / SUMS).splitlines()
    sums = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    found = {name: sha256_of_file(folder / name) for name in _files(folder) if name != SUMS}
    differing = [name for name in sums | found if sums.get(name) != found.get(name)]
    if differing:
        raise RunError(
            f"{location} is not as it was packed: {', '.join(differing[:3])} differs from its "
            f"SHA-256 in {SUMS}, or is missing; get it again, or pack the run again"
        )


def _place(new: Path, folder: Path) -> None:
    """Put a whole copy in its place, on the disk first; another process may have been faster."""
    for path in new.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        new.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
