"""One HDF5 shard, opened and checked. A shard is written whole or not at all.

A shard holds some videos' frames end to end:

=================  ==================  ==========================================================
dataset            shape, type         meaning
=================  ==================  ==========================================================
embeddings         (frames, width) f2  unit vectors, contiguous and uncompressed
pts_seconds        (frames,) f8        presentation time of each frame
covers             (frames,) i4        frames, or clips, that each stands for: itself, and
                                       what a sampler left out after it
offsets            (videos + 1,) i8    video i has the frames offsets[i]:offsets[i + 1]
video_ids          (videos,) UTF-8     as in the manifest
status, reason     (videos,) UTF-8     ok, partial or failed, and why
source_bytes       (videos,) i8        size of the video file, -1 where it could not be read
source_sha256      (videos,) UTF-8     hash of the video file
frames_expected    (videos,) i8        what the container promises, -1 where it does not say
attempt            (videos,) i8        how many entries of the video this one replaces, one after
                                        another; absent where all are 0
frame_size         (videos, 2) i4       width and height of the video's frames, upright and
                                        before they are resized; 0 where not known, and absent
                                        where none is
=================  ==================  ==========================================================

Its attributes are `spec`, the `CacheSpec` as JSON, and `sha256`, over the spec and all datasets.
They are texts of fixed length: HDF5 keeps others in a heap of its own, over which it loops for
ever in a file with the wrong bytes there.
"""

import hashlib
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from memfeat.cache.rows import FileIdentity, StoredRows, as_damage, damage
from memfeat.cache.spec import SCHEMA_VERSION, CacheSpec
from memfeat.cache.video import STATUSES, EncodedVideo, VideoEntry, blocks_of
from memfeat.errors import CacheError, short_repr
from memfeat.manifest import check_id

NORM_BLOCK = 4096  # vectors checked at once, so that the check stays in the CPU's cache
MOST_COVERED = 65_535  # by one frame, so that a small file cannot claim a video without end
NORM_TOLERANCE = 2e-3  # float16 rounding of a unit vector's entries stays well below
MOST_TEXT_BYTES = 1 << 16  # of an attribute, which HDF5 keeps in the header up to here
TEXTS = ("video_ids", "status", "reason", "source_sha256")
NUMBERS = {
    "embeddings": h5py.h5t.IEEE_F16LE,
    "pts_seconds": h5py.h5t.IEEE_F64LE,
    "covers": h5py.h5t.STD_I32LE,
    "offsets": h5py.h5t.STD_I64LE,
    "source_bytes": h5py.h5t.STD_I64LE,
    "frames_expected": h5py.h5t.STD_I64LE,
    "attempt": h5py.h5t.STD_I64LE,
    "frame_size": h5py.h5t.STD_I32LE,
}
OPTIONAL = {"attempt", "frame_size"}


@dataclass(frozen=True)
class Shard:
    """An open shard whose layout has been checked, though not yet its content.

    Attributes:
        path: its file.
        datasets: by name.
        spec: what made it.
        sha256: its checksum as it was written.
        rows: the byte offsets of its frames, to read them once it is closed.
    """

    path: Path
    datasets: dict[str, h5py.Dataset]
    spec: CacheSpec
    sha256: str
    rows: StoredRows

    def entries(self) -> list[VideoEntry]:
        """Read the entries of the shard's videos, in order.

        Raises:
            DamagedShardError: that cannot be read.
        """
        with as_damage(self.path):
            video_ids, statuses, reasons, sources = (
                [text.decode() for text in self.datasets[name][()].tolist()] for name in TEXTS
            )
            offsets, expected, sizes = (
                self.datasets[name][()].tolist()
                for name in ("offsets", "frames_expected", "source_bytes")
            )
            given = self.datasets.get("attempt")
            attempts = repeat(0) if given is None else given[()].tolist()
            given = self.datasets.get("frame_size")
            known: dict[Any, Any] = {}  # few differ, and each is kept in memory once
            pairs = repeat((0, 0)) if given is None else map(tuple, given[()].tolist())
            frames = (known.setdefault(pair, pair) for pair in pairs)
            covers = np.cumsum(self.datasets["covers"][()], dtype=np.int64)
            covered = np.concatenate([[0], covers])[offsets]
            check_texts(video_ids, statuses, reasons, sources)
            entries = list(
                map(
                    VideoEntry,
                    *(video_ids, statuses, reasons),
                    *(offsets[:-1], offsets[1:], np.diff(covered).tolist()),
                    *(expected, sources, repeat(self.path), attempts, sizes, frames),
                )
            )
            for entry in entries:
                if entry.contradiction:
                    raise ValueError(f"{entry.contradiction}: {entry.video_id!r}")
            return entries

    def videos(self) -> list[EncodedVideo]:
        """Return its videos, to be written to another shard; vectors are read as they are needed.

        Raises:
            DamagedShardError: they cannot be read.
        """
        at, shape = self.rows.embeddings_at, self.datasets["embeddings"].shape
        with as_damage(self.path):
            embeddings = (
                np.memmap(self.path, "<f2", "r", at, shape) if shape[0] else np.empty(shape, "<f2")
            )
            pts_seconds, covers = (self.datasets[name][()] for name in ("pts_seconds", "covers"))
        return [
            EncodedVideo(
                video_id=entry.video_id,
                embeddings=embeddings[entry.start : entry.stop],
                pts_seconds=pts_seconds[entry.start : entry.stop],
                status=entry.status,
                reason=entry.reason,
                source_bytes=entry.source_bytes,
                source_sha256=entry.source_sha256,
                frames_expected=None if entry.frames_expected < 0 else entry.frames_expected,
                covers=covers[entry.start : entry.stop],
                attempt=entry.attempt,
                frame_size=entry.frame_size,
            )
            for entry in self.entries()
        ]

    def verify(self) -> None:
        """Read everything and check it.

        Raises:
            DamagedShardError: the content differs from its checksum, or a vector has not length 1.
        """
        self.verify_checksum()
        with as_damage(self.path):
            for block in blocks_of(self.datasets["embeddings"]):
                if problem := find_odd_vector(block, self.spec):
                    raise damage(self.path, problem[1])

    def verify_checksum(self) -> None:
        """Read everything, a part at a time, and compare it with its checksum.

        Raises:
            DamagedShardError: it differs, or cannot be read.
        """
        embeddings = self.datasets["embeddings"]
        with as_damage(self.path):
            text = _text_attribute(self.path, embeddings.file, "spec")
            columns = {n: each[()] for n, each in self.datasets.items() if n != "embeddings"}
            blocks = blocks_of(embeddings)
            if self.sha256 != checksum(text, columns, embeddings.shape, blocks):
                raise damage(self.path, "its content does not match its checksum")


@contextmanager
def open_shard(path: Path) -> Iterator[Shard]:
    """Open a shard after checking that it is laid out as this module writes it.

    A shard may come from a stranger, so no link is followed out of the file, no filter is run, and
    no shape is accepted that the file is too small to hold.

    Raises:
        DamagedShardError: it is not.
        CacheError: another version of memfeat wrote it.
        PermissionError: it may not be read.
    """
    with ExitStack() as stack:
        with as_damage(path):
            # Without HDF5's lock: nothing writes to a shard that is in place, and whoever has just
            # put it there may still hold the lock of its part file, which is the same file.
            file = stack.enter_context(h5py.File(path, "r", driver="sec2", locking=False))
            shard = _checked(path, file)
        yield shard


def find_odd_vector(
    embeddings: NDArray[np.float16], spec: CacheSpec, *, zeros: bool = False
) -> tuple[int, str] | None:
    """Find a vector that is not finite or not of the length that the spec promises, if any.

    Args:
        embeddings: float16 (rows, width).
        spec: what made them.
        zeros: whether vectors of zeros may be among them.

    Returns:
        Its row, and what is wrong in words.
    """
    vectors = embeddings.reshape(-1, spec.dim)
    is_unit = spec.normalisation == "l2"
    for start in range(0, len(vectors), NORM_BLOCK):
        block = vectors[start : start + NORM_BLOCK].astype(np.float32)
        norms = np.sqrt(np.einsum("ij,ij->i", block, block))
        right = (np.abs(norms - 1) < NORM_TOLERANCE) if is_unit else norms < np.inf
        odd = np.flatnonzero(~(right | (norms == 0) if zeros else right))
        if len(odd):
            row = (start + int(odd[0])) // spec.num_tokens
            wanted = "1" if is_unit else "finite"
            return row, f"a vector's length is {norms[odd[0]]:.6g}, not {wanted}"
    return None


def _checked(path: Path, file: h5py.File) -> Shard:
    # Taken first, and of the very file that HDF5 has open, so that any later change to the file
    # differs from it.
    identity = FileIdentity.of(file.id.get_vfd_handle())
    spec = _parse_spec(
        path, _text_attribute(path, file, "spec")
    )  # first: another version's shards may hold other datasets
    datasets = _contiguous_datasets(path, file, identity.size)
    frames, videos = len(datasets["embeddings"]), len(datasets["video_ids"])
    expected_shapes: dict[str, tuple[int, ...]] = {
        **dict.fromkeys((*TEXTS, "source_bytes", "frames_expected", "attempt"), (videos,)),
        "embeddings": (frames, spec.width),
        "pts_seconds": (frames,),
        "covers": (frames,),
        "offsets": (videos + 1,),
        "frame_size": (videos, 2),
    }
    for name, dataset in datasets.items():
        if dataset.shape != expected_shapes[name]:
            raise damage(path, f"{name} has shape {dataset.shape}, not {expected_shapes[name]}")
    for name in TEXTS:
        text = datasets[name].id.get_type()
        # Texts of variable length may all claim the same megabytes of the file.
        if not isinstance(text, h5py.h5t.TypeStringID) or text.is_variable_str():
            raise damage(path, f"{name} is not of texts of fixed length")
    for name, kind in NUMBERS.items():
        if name in datasets and datasets[name].id.get_type() != kind:
            raise damage(
                path, f"{name} is of type {datasets[name].dtype.str}, not {kind.dtype.str}"
            )
    offsets = datasets["offsets"][()]
    # Compared and not subtracted, for a difference may overflow.
    if offsets[0] != 0 or offsets[-1] != frames or np.any(offsets[1:] < offsets[:-1]):
        raise damage(path, f"offsets do not rise from 0 to {frames}")
    try:
        check_covers(datasets["covers"][()])
    except ValueError as error:
        raise damage(path, str(error)) from error
    at = (datasets[name].id.get_offset() or 0 for name in ("embeddings", "pts_seconds", "covers"))
    sha256 = _text_attribute(path, file, "sha256")
    return Shard(path, datasets, spec, sha256, StoredRows(path, identity, *at))


def _contiguous_datasets(path: Path, file: h5py.File, size: int) -> dict[str, h5py.Dataset]:
    """Return the datasets of a file of `size` bytes, each of which lies in one piece of it."""
    found = set(file)
    names = [name for name in (*TEXTS, *NUMBERS) if name in found or name not in OPTIONAL]
    if odd := sorted(found ^ set(names)):
        what = "is missing" if odd[0] in names else "does not belong in a shard"
        raise damage(path, f"{short_repr(odd[0])} {what}")
    datasets = {}
    for name in names:
        is_hard = file.id.links.get_info(name.encode()).type == h5py.h5l.TYPE_HARD
        dataset = file[name] if is_hard else None
        if not isinstance(dataset, h5py.Dataset) or not _is_contiguous(dataset):
            raise damage(path, f"{name} is not a plain contiguous dataset")
        # Multiplied here, for elsewhere the product may overflow.
        claimed = math.prod(dataset.shape or ()) * dataset.dtype.itemsize
        if claimed and (dataset.id.get_offset() or size) + claimed > size:
            raise damage(path, f"{name} claims {claimed} bytes, more than the file holds")
        datasets[name] = dataset
    return datasets


def _is_contiguous(dataset: h5py.Dataset) -> bool:
    how = dataset.id.get_create_plist()
    return how.get_layout() == h5py.h5d.CONTIGUOUS and not how.get_external_count()


def check_covers(covers: NDArray[np.int32]) -> None:
    """Refuse frames that stand for none, or for too many.

    Raises:
        ValueError: says which are allowed.
    """
    if len(covers) and not 1 <= covers.min() <= covers.max() <= MOST_COVERED:
        raise ValueError(f"covers are not all from 1 to {MOST_COVERED}")


def check_texts(
    video_ids: Sequence[str],
    statuses: Sequence[str],
    reasons: Sequence[str],
    sources: Sequence[str],
) -> None:
    """Refuse texts that no manifest and no version of this module could have written.

    Raises:
        ValueError: names it.
    """
    for video_id in video_ids:
        try:
            check_id(video_id)
        except ValueError as error:
            raise ValueError(f"an id is {short_repr(video_id)}, which {error}") from None
    if len(set(video_ids)) < len(video_ids):
        raise ValueError("it holds a video twice")
    for status in statuses:
        if status not in STATUSES:
            raise ValueError(f"a status is {short_repr(status)}, not one of {', '.join(STATUSES)}")
    for reason in reasons:
        if reason and not reason.isidentifier():
            raise ValueError(f"a reason is {short_repr(reason)}, which is not one word")
    for video_id, sha256 in zip(video_ids, sources, strict=True):
        if not re.fullmatch("([0-9a-f]{64})?", sha256):
            raise ValueError(f"the hash of {video_id!r} is {short_repr(sha256)}")


def text_attribute(text: str) -> dict[str, Any]:
    """Return h5py's arguments for an attribute that holds a text of fixed length."""
    content = text.encode()
    return {"data": np.bytes_(content), "dtype": h5py.string_dtype("utf-8", len(content))}


def _text_attribute(path: Path, file: h5py.File, name: str) -> str:
    if not h5py.h5a.exists(file.id, name.encode()):
        raise damage(path, f"it has no {name}")
    attribute = h5py.h5a.open(file.id, name.encode())
    kind = attribute.get_type()
    if not isinstance(kind, h5py.h5t.TypeStringID) or attribute.shape != ():
        raise damage(path, f"{name} is not a text")
    if kind.is_variable_str():
        raise CacheError(
            f"{path}: {name} is a text of variable length, which this memfeat neither writes nor "
            "reads. Was it written by another version? Then use that one, or give another --cache"
        )
    if kind.get_size() > MOST_TEXT_BYTES:
        raise damage(path, f"{name} claims {kind.get_size()} bytes, more than {MOST_TEXT_BYTES}")
    content = np.empty((), f"S{kind.get_size()}")
    attribute.read(content, mtype=kind)
    text: bytes = content.item()
    return text.decode()


def _parse_spec(path: Path, text: str) -> CacheSpec:
    try:
        return CacheSpec.model_validate_json(text)
    except ValidationError as error:
        problem = error.errors()[0]
        if problem["type"] == "json_invalid":
            raise damage(path, f"its spec cannot be read: {problem['msg']}") from error
        field = ".".join(str(part) for part in problem["loc"])
        raise CacheError(
            f"{path}: its spec does not fit schema {SCHEMA_VERSION} of this memfeat: {field}: "
            f"{problem['msg']}. Was it written by another version? Then use that one, or give "
            "another --cache"
        ) from error


def checksum(
    spec: str,
    columns: Mapping[str, NDArray[Any]],
    shape: tuple[int, ...],
    blocks: Iterable[NDArray[np.float16]],
) -> str:
    """Return the SHA-256 of a spec and of all columns by name, the embeddings among them.

    The embeddings, of `shape`, are given as blocks of rows.
    """
    digest = hashlib.sha256(spec.encode())
    for name in sorted({*columns, "embeddings"}):
        kind, size, parts = "<f2", shape, blocks
        if name in columns:
            kind, size, parts = columns[name].dtype.str, columns[name].shape, [columns[name]]
        digest.update(f"\0{name} {kind} {size}\0".encode())
        for part in parts:
            digest.update(np.ascontiguousarray(part).data if part.size else b"")
    return digest.hexdigest()
