"""One HDF5 shard: the atom that is written whole or not at all; the only importer of h5py.

A shard holds some videos' frames end to end:

=================  ==================  ==========================================================
dataset            shape, type         meaning
=================  ==================  ==========================================================
embeddings         (frames, dim) f2    unit vectors, contiguous and uncompressed
pts_seconds        (frames,) f8        presentation time of each frame
offsets            (videos + 1,) i8    video i has the frames offsets[i]:offsets[i + 1]
video_ids          (videos,) UTF-8     as in the manifest
status, reason     (videos,) UTF-8     ok, partial or failed, and why
source_bytes       (videos,) i8        size of the video file, -1 where it could not be read
source_sha256      (videos,) UTF-8     hash of the video file
frames_expected    (videos,) i8        what the container promises, -1 where it does not say
=================  ==================  ==========================================================

Its attributes are `spec`, the `CacheSpec` as JSON, and `sha256`, over the spec and all datasets.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import h5py
import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from memfeat.cache.spec import SCHEMA_VERSION, CacheSpec
from memfeat.errors import CacheError, DamagedShardError
from memfeat.files import write_atomically

NORM_BLOCK = 4096  # rows checked at once, so that the check stays in the CPU's cache
NORM_TOLERANCE = 2e-3  # float16 rounding of a unit vector's entries stays well below
TEXTS = ("video_ids", "status", "reason", "source_sha256")
NUMBERS = ("embeddings", "pts_seconds", "offsets", "source_bytes", "frames_expected")

Status = Literal["ok", "partial", "failed"]
STATUSES: tuple[Status, ...] = get_args(Status)


@dataclass(frozen=True)
class EncodedVideo:
    """One video as stage 1 leaves it.

    Attributes:
        video_id: as in the manifest.
        embeddings: float16 (frames, dim), unit L2 norm; no rows if the video failed.
        pts_seconds: float64 (frames,).
        status: `ok`, `partial` (some frames could not be decoded) or `failed`.
        reason: stable code of why it is not ok; empty otherwise.
        source_bytes: size of the file, or -1.
        source_sha256: hash of the file, or empty.
        frames_expected: what the container promises, if it does.
    """

    video_id: str
    embeddings: NDArray[np.float16]
    pts_seconds: NDArray[np.float64]
    status: Status = "ok"
    reason: str = ""
    source_bytes: int = -1
    source_sha256: str = ""
    frames_expected: int | None = None


@dataclass(frozen=True)
class VideoEntry:
    """What a cache knows of one video.

    `start` and `stop` are rows of its shard; `frames_expected` is -1 where the container is silent.
    """

    video_id: str
    status: str
    reason: str
    start: int
    stop: int
    frames_expected: int
    shard: Path

    @property
    def num_frames(self) -> int:
        """Frames cached."""
        return self.stop - self.start


def write_shard(folder: Path, spec: CacheSpec, videos: Sequence[EncodedVideo]) -> Path:
    """Write one shard, whole or not at all, and return its path.

    The name follows from the spec and the ids, and the bytes from the content, so the same shard
    made twice, by anyone, is the same file.

    Raises:
        CacheError: the folder holds shards of another making, or cannot be written to.
    """
    for other in sorted(folder.glob("shard-*.h5"))[:1]:
        with suppress(DamagedShardError), open_shard(other) as shard:
            shard.spec.require(spec, f"{folder} was meanwhile given shards made differently")
    ids = [video.video_id for video in videos]
    key = hashlib.sha256("\0".join([spec.model_dump_json(), *ids]).encode()).hexdigest()
    path = folder / f"shard-{key[:16]}.h5"
    try:
        write_atomically(path, _shard_bytes(spec, videos))
    except OSError as error:
        raise CacheError(
            f"cannot write {path}: {error.strerror}. Finished shards are kept: mend that, and run "
            "the same command again"
        ) from error
    return path


@dataclass(frozen=True)
class Shard:
    """An open shard whose layout has been checked, though not yet its content."""

    path: Path
    file: h5py.File
    spec: CacheSpec

    def entries(self) -> list[VideoEntry]:
        """Read what the shard knows of its videos, in order.

        Raises:
            DamagedShardError: that cannot be read.
        """
        with _reading(self.path):
            columns = [self._texts(name) for name in ("video_ids", "status", "reason")]
            offsets, expected = (self.file[n][()].tolist() for n in ("offsets", "frames_expected"))
            for status in columns[1]:
                if status not in STATUSES:
                    raise ValueError(f"a status is {status!r}, not one of {', '.join(STATUSES)}")
            return [
                VideoEntry(video_id, status, reason, start, stop, frames_expected, self.path)
                for (video_id, status, reason), start, stop, frames_expected in zip(
                    zip(*columns, strict=True), offsets[:-1], offsets[1:], expected, strict=True
                )
            ]

    def read_into(
        self, values: NDArray[np.float16], pts_seconds: NDArray[np.float64], rows: slice, at: int
    ) -> None:
        """Read frames `rows` to the places from `at` on.

        Raises:
            DamagedShardError: they cannot be read.
        """
        target = np.s_[at : at + rows.stop - rows.start]
        with _reading(self.path):
            self.file["embeddings"].read_direct(values, rows, target)
            self.file["pts_seconds"].read_direct(pts_seconds, rows, target)

    def verify(self) -> None:
        """Read everything and check it.

        Raises:
            DamagedShardError: the content differs from its checksum, or a vector has not length 1.
        """
        with _reading(self.path):
            arrays = {name: self.file[name][()] for name in (*TEXTS, *NUMBERS)}
        if self.file.attrs.get("sha256") != _checksum(self.file.attrs["spec"], arrays):
            raise _damage(self.path, "its content does not match its checksum")
        problem = find_odd_vector(arrays["embeddings"], self.spec)
        if problem:
            raise _damage(self.path, problem[1])

    def _texts(self, name: str) -> list[str]:
        return [text.decode() for text in self.file[name][()].tolist()]


@contextmanager
def open_shard(path: Path) -> Iterator[Shard]:
    """Open a shard after checking that it is laid out as this module writes it.

    A shard may come from a stranger, so nothing is followed out of the file, no filter is run,
    and no shape is believed that the file is too small to hold.

    Raises:
        DamagedShardError: it is not.
        CacheError: a newer memfeat wrote it.
        PermissionError: it may not be read.
    """
    with ExitStack() as stack:
        with _reading(path):
            file = stack.enter_context(h5py.File(path, "r"))
            shard = Shard(path, file, _checked_layout(path, file))
        yield shard


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Tell of whatever HDF5 or our decoding stumbles over as damage to the shard."""
    try:
        yield
    except PermissionError:
        raise
    except (OSError, KeyError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        raise _damage(path, " ".join(str(error).split())) from error


def find_odd_vector(embeddings: NDArray[np.float16], spec: CacheSpec) -> tuple[int, str] | None:
    """Find a row that is not finite or not of the length that the spec promises, if there is one.

    Returns:
        Its number, and what is wrong in words.
    """
    if spec.normalisation != "l2":
        return None
    for start in range(0, len(embeddings), NORM_BLOCK):
        block = embeddings[start : start + NORM_BLOCK].astype(np.float32)
        norms = np.sqrt(np.einsum("ij,ij->i", block, block))
        odd = np.flatnonzero(~(np.abs(norms - 1) < NORM_TOLERANCE))
        if len(odd):
            return start + int(odd[0]), f"a vector's length is {norms[odd[0]]:.6g}, not 1"
    return None


def _checked_layout(path: Path, file: h5py.File) -> CacheSpec:
    if set(file) != {*TEXTS, *NUMBERS}:
        raise _damage(path, f"it holds {sorted(file)}, not {sorted([*TEXTS, *NUMBERS])}")
    size = path.stat().st_size
    for name in file:
        dataset = (
            file.get(name) if isinstance(file.get(name, getlink=True), h5py.HardLink) else None
        )
        if (
            not isinstance(dataset, h5py.Dataset)
            or dataset.chunks is not None
            or dataset.external is not None
            or dataset.is_virtual
        ):
            raise _damage(path, f"{name} is not a plain contiguous dataset")
        if dataset.nbytes and (dataset.id.get_offset() or size) + dataset.nbytes > size:
            raise _damage(path, f"{name} claims {dataset.nbytes} bytes, more than the file holds")
    spec = _read_spec(path, file)
    offsets = file["offsets"][()]
    frames, videos = len(file["embeddings"]), len(file["video_ids"])
    expected_shapes: dict[str, tuple[int, ...]] = {
        **dict.fromkeys((*TEXTS, "source_bytes", "frames_expected"), (videos,)),
        "embeddings": (frames, spec.dim),
        "pts_seconds": (frames,),
        "offsets": (videos + 1,),
    }
    for name, shape in expected_shapes.items():
        if file[name].shape != shape:
            raise _damage(path, f"{name} has shape {file[name].shape}, not {shape}")
    if offsets[0] != 0 or offsets[-1] != frames or np.any(np.diff(offsets) < 0):
        raise _damage(path, f"offsets do not rise from 0 to {frames}")
    if file["embeddings"].dtype != np.float16:
        raise _damage(path, f"embeddings are {file['embeddings'].dtype}, not float16")
    return spec


def _read_spec(path: Path, file: h5py.File) -> CacheSpec:
    text = file.attrs.get("spec")
    if not isinstance(text, str):
        raise _damage(path, "it has no spec")
    try:
        return CacheSpec.model_validate_json(text)
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(str(part) for part in problem["loc"])
        raise CacheError(
            f"{path}: its spec does not fit schema {SCHEMA_VERSION} of this memfeat: {field}: "
            f"{problem['msg']}. Was it written by a newer version?"
        ) from error


def _shard_bytes(spec: CacheSpec, videos: Sequence[EncodedVideo]) -> bytes:
    """Lay a shard out in memory; the bytes depend on nothing but the arguments."""
    frames = [len(video.embeddings) for video in videos]
    nothing = np.empty((0, spec.dim), np.float16)
    arrays: dict[str, NDArray[Any]] = {
        "embeddings": np.concatenate([nothing, *(video.embeddings for video in videos)]),
        "pts_seconds": np.concatenate([np.empty(0), *(video.pts_seconds for video in videos)]),
        "offsets": np.cumsum([0, *frames], dtype=np.int64),
        "video_ids": _encoded(video.video_id for video in videos),
        "status": _encoded(video.status for video in videos),
        "reason": _encoded(video.reason for video in videos),
        "source_bytes": np.array([video.source_bytes for video in videos], np.int64),
        "source_sha256": _encoded(video.source_sha256 for video in videos),
        "frames_expected": np.array(
            [-1 if video.frames_expected is None else video.frames_expected for video in videos],
            np.int64,
        ),
    }
    with h5py.File("shard", "w", driver="core", backing_store=False) as file:
        for name, array in arrays.items():
            utf8 = h5py.string_dtype("utf-8", array.itemsize)
            file.create_dataset(name, data=array.view(utf8) if name in TEXTS else array)
        file.attrs["spec"] = spec.model_dump_json()
        file.attrs["sha256"] = _checksum(file.attrs["spec"], arrays)
        file.flush()
        image: bytes = file.id.get_file_image()
    return image


def _encoded(texts: Iterable[str]) -> NDArray[np.bytes_]:
    """Pack texts as fixed-length UTF-8; numpy makes them at least one byte long, as HDF5 wants."""
    return np.array([text.encode() for text in texts], dtype=np.bytes_)


def _checksum(spec: str, arrays: dict[str, NDArray[Any]]) -> str:
    digest = hashlib.sha256(spec.encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"\0{name} {array.dtype.str} {array.shape}\0".encode())
        digest.update(array.data if array.size else b"")
    return digest.hexdigest()


def _damage(path: Path, what: str) -> DamagedShardError:
    return DamagedShardError(
        f"{path} is damaged: {what}. Delete it and run `memfeat extract` again"
    )
