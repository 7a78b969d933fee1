"""Checkpoint files as named tensors: read without running what they hold, fitted, hashed."""

import hashlib
import json
import logging
import re
import warnings
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from pickle import UnpicklingError  # the name of an error, and nothing that reads a pickle
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from memfeat.errors import EncoderError
from memfeat.storage import stand_in, write_atomically

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
STATEMENTS = "memfeat"  # the entry of a safetensors file's metadata that memfeat writes
MOST_UNPACKED = 64 << 20  # bytes by which an archive may grow: TorchScript packs its code
COUNTER = "num_batches_tracked"  # batch norm counts its training steps; no feature depends on it
# Of data parallelism, torch.compile (of a part, too) and training frameworks.
WRAPPERS = re.compile(r"^(?:(?:module|_orig_mod|model)\.)+|(?<=\.)_orig_mod\.")
# A file of a checkpoint that was saved in several, or their list.
PART = re.compile(r"-\d{5}-of-(?!00001\.)\d{5}\.|\.index\.json$")
AVERAGED = "n_averaged"  # a count, beside the averaged model that torch wraps as `module`

_log = logging.getLogger(__name__)


def means_file(weights: str) -> bool:
    """Whether `--weights` was given a path rather than the name of pretrained weights."""
    path = weights_path(weights)
    return path.suffix in SUFFIXES or "/" in weights or path.is_file()


def weights_path(weights: str) -> Path:
    """Return the path that `--weights` gives; a home that nobody has stays as it is written."""
    with suppress(RuntimeError):
        return Path(weights).expanduser()
    return Path(weights)


def read_checkpoint(path: Path, order: Sequence[str] = ()) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint, by name, on the CPU.

    Three kinds are read: safetensors; what `torch.save` wrote, with `weights_only=True`, so that
    nothing but tensors and plain containers is unpickled; and TorchScript archives, as OpenAI
    publishes CLIP. TorchScript is a program, but it runs only when it is called, or while loading
    where a class defines `__setstate__`. Archives that define one are refused and nothing in the
    others is called, so reading a checkpoint never runs code from it. But torch reads TorchScript
    with few checks of its own: one that was damaged is refused here, one that was forged may still
    crash the process. Prefer safetensors from people you do not know.

    The prefixes of wrappers such as data-parallel training are dropped.

    Args:
        path: the file.
        order: of several state dicts in the file, such as a model's and that of its moving average,
            the names of those that the model's own library loads, the first that is there.

    Raises:
        EncoderError: no such file, not a checkpoint, one that holds more than tensors, or several
            state dicts of which `order` names none.
    """
    if not path.is_file():
        raise EncoderError(f"there is no checkpoint file {path}; give the path of an existing one")
    if PART.search(path.name):
        text = "is a part of a checkpoint, or lists its parts; save all of its tensors in one file"
        raise EncoderError(f"{path} {text}")
    with suppress(OSError), path.open("rb") as file:  # reading it says what is wrong
        if what := stand_in(file.read(64)):
            raise EncoderError(f"{path} is {what}")
    try:
        with warnings.catch_warnings(action="ignore"):  # such as of formats that are deprecated
            content = _read(path)
    except UnpicklingError as error:
        raise EncoderError(
            f"{path} is not a checkpoint, or holds Python objects besides tensors, which memfeat "
            "does not load because they could run code; save its state dict as .safetensors"
        ) from error
    except Exception as error:  # readers fail in every way there is on bytes that are no weights
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise EncoderError(
            f"{path} cannot be read as a checkpoint ({', '.join(SUFFIXES)}): {reason}"
        ) from error
    tensors = _unwrapped(path, _state_dict(path, content, order))
    if not tensors:
        raise EncoderError(f"{path} holds no tensors by name; save a model's state dict")
    for name, value in tensors.items():
        # Neither sparse or quantized, nor without the numbers that it says it has.
        dense = value.layout == torch.strided and value.device.type == "cpu"
        if not dense or value.is_quantized or (value.numel() and not value.data_ptr()):
            raise EncoderError(
                f"{path}: {name!r} is not a plain tensor; save a dense one of numbers"
            )
    return tensors


def _state_dict(path: Path, content: Any, order: Sequence[str]) -> Mapping[str, Any]:
    """Choose what to load of a file's content."""
    if not isinstance(content, Mapping):
        return {}
    entries = {"tensors": content, **{k: v for k, v in content.items() if isinstance(v, Mapping)}}
    found: dict[str, Mapping[str, Any]] = {}
    for least in (2, 0):  # weights have two dimensions at least; counts and random states have not
        found = found or {
            name: entry
            for name, entry in entries.items()
            if any(isinstance(v, Tensor) and v.ndim >= least for v in entry.values())
        }
    if len(found) < 2:
        return next(iter(found.values()), {})
    chosen = next((name for name in order if name in found), None)
    if chosen is None:
        raise EncoderError(
            f"{path} holds several state dicts, {', '.join(map(str, found))}, and which one is "
            "meant is not known; save that to a file of its own, as by "
            f"torch.save(torch.load({path.name!r})[{list(found)[-1]!r}], 'one.pt')"
        )
    _log.warning("%s: loading %s, as the model's library does, of %s", path, chosen, list(found))
    return found[chosen]


def _unwrapped(path: Path, content: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the tensors under the names that they have in the model itself."""
    tensors: dict[str, Tensor] = {}
    for name, value in content.items():
        if isinstance(name, str) and isinstance(value, Tensor) and name != AVERAGED:
            bare = WRAPPERS.sub("", name)
            if bare in tensors:
                raise EncoderError(
                    f"{path} holds {bare!r} twice, once as {name!r}; save one model's state dict "
                    "to a file of its own"
                )
            tensors[bare] = value
    return tensors


def read_statements(path: Path) -> dict[str, Any]:
    """Return what a checkpoint that memfeat wrote says of itself; nothing of other files.

    Raises:
        EncoderError: the file cannot be read.
    """
    try:
        if not _is_safetensors(path):
            return {}
        with safetensors.safe_open(path, "pt") as file:
            content = json.loads((file.metadata() or {}).get(STATEMENTS, "{}"))
    except (OSError, ValueError, RecursionError, safetensors.SafetensorError) as error:
        raise EncoderError(f"{path} cannot be read as a checkpoint: {error}") from error
    return content if isinstance(content, dict) else {}


def write_checkpoint(path: Path, module: nn.Module, statements: Mapping[str, Any]) -> None:
    """Write a module's tensors as safetensors, atomically, with what is to be said of them.

    The same tensors and statements give the same bytes.

    Raises:
        OSError: the file cannot be written.
    """
    # One entry: safetensors writes several in an order that changes from run to run.
    metadata = {STATEMENTS: json.dumps(statements)}
    tensors = {name: value.contiguous() for name, value in module.state_dict().items()}
    write_atomically(path, safetensors.torch.save(tensors, metadata))


def fit(module: nn.Module, tensors: Mapping[str, Tensor], encoder: str, source: str) -> None:
    """Copy `tensors` into `module`, all of them, name by name and shape by shape.

    Raises:
        EncoderError: a name is missing or left over, or a shape differs; the message counts them
            and shows the first few.
    """
    wanted = {name: value for name, value in module.state_dict().items() if COUNTER not in name}
    given = {name: value for name, value in tensors.items() if COUNTER not in name}
    problems = {
        "missing": [name for name in wanted if name not in given],
        "unexpected": [name for name in given if name not in wanted],
        "of another shape": [
            f"{name} {tuple(given[name].shape)} instead of {tuple(wanted[name].shape)}"
            for name in wanted
            if name in given and given[name].shape != wanted[name].shape
        ],
        "not of real numbers, as where they are quantized": [
            f"{name} of {str(given[name].dtype).removeprefix('torch.')}"
            for name, value in wanted.items()
            if name in given and value.is_floating_point() > given[name].is_floating_point()
        ],
    }
    if any(problems.values()):
        found = "; ".join(
            f"{len(names)} {problem} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
            for problem, names in problems.items()
            if names
        )
        raise EncoderError(
            f"{source} does not fit {encoder}: of {len(wanted)} tensors, {found}. "
            "Give the encoder's name that these weights were trained under"
        )
    module.load_state_dict(given, strict=False)


def half_precision(tensors: Mapping[str, Tensor] | None) -> str:
    """Return the half precision of weights: `float16` if most came in it, else `bfloat16`.

    On random weights float16 is eighty times nearer to float32 than bfloat16 is (1 - cos of 5e-7
    and 4e-5), but only weights that were stored in it are known to fit its range.
    """
    numbers = Counter[torch.dtype]()
    for value in (tensors or {}).values():
        numbers[value.dtype] += value.numel()
    most = max(numbers, key=lambda dtype: numbers[dtype], default=None)
    return "float16" if most == torch.float16 else "bfloat16"


def tensors_sha256(module: nn.Module) -> str:
    """Return the SHA-256 over a float32 module's tensors: name, type, shape and bytes, by name.

    The same weights give the same hash whatever file they came from, half precision included.
    """
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        if COUNTER not in name:
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
            digest.update(value.contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _require_sound(archive: zipfile.ZipFile, size: int) -> None:
    """Refuse an archive of `size` bytes that unpacks to far more, or is not as it was written.

    Torch looks at neither, and believes what a damaged TorchScript archive says of its tensors'
    sizes, up to reading memory that is not theirs.
    """
    unpacked = sum(entry.file_size for entry in archive.infolist())
    if unpacked > size + MOST_UNPACKED:  # tensors are never packed
        raise ValueError(f"it claims to unpack to {unpacked} bytes, from {size}")
    damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f"{damaged!r} in it does not match its checksum; fetch it again")


def _is_safetensors(path: Path) -> bool:
    """Whether a file is named as safetensors, or begins as one: a length, then JSON."""
    with path.open("rb") as file:
        start = file.read(9)
    begins = start[8:] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size
    return begins or path.suffix == ".safetensors"


def _read(path: Path) -> Any:
    if _is_safetensors(path):
        return safetensors.torch.load_file(path)
    if not zipfile.is_zipfile(path):
        return torch.load(path, map_location="cpu", weights_only=True)
    with zipfile.ZipFile(path) as archive:
        _require_sound(archive, path.stat().st_size)
        names = archive.namelist()
        sizes = {entry.file_size for entry in archive.infolist()}
        if not any(name.endswith("/constants.pkl") for name in names):
            return torch.load(path, map_location="cpu", weights_only=True)
        if any("/code/" in name and b"__setstate__" in archive.read(name) for name in names):
            raise ValueError("a TorchScript archive that runs code (__setstate__) while it loads")
    module = torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]
    tensors: dict[str, Tensor] = module.state_dict()
    for name, tensor in tensors.items():
        if tensor.numel() and tensor.untyped_storage().nbytes() not in sizes:
            raise ValueError(f"{name!r} has not as many numbers in the file as it says")
    return tensors
