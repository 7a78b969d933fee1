"""Where torch computes, and its global state: threads and generators, set and given back."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import RLock

import torch

from memfeat.errors import ConfigError

CPU = torch.device("cpu")
NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")  # where the kernel has one
_drawing = RLock()  # held while a thread has seeded the generators, which all threads share


def resolve_device(name: str) -> torch.device:
    """Return the device called `name`; `auto` is the first GPU, or else the CPU.

    Raises:
        ConfigError: no such device here; or `auto`, and there is a GPU that torch cannot use.
    """
    if name == "auto":
        problem = unusable_gpu()
        if problem:
            raise ConfigError(f"{problem}, or give --device cpu to do without")
        return torch.device("cuda", 0) if torch.cuda.is_available() else CPU
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in {"cpu", "cuda"}:
        raise ConfigError(f"device {name!r} is not one of: auto, cpu, cuda, cuda:1 and so on")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"device {name!r} is not there: torch sees {torch.cuda.device_count()} GPUs; "
            "`memfeat doctor` tells more, and --device cpu does without"
        )
    return device


def resolve_devices(names: str) -> list[torch.device]:
    """Return the devices of a list such as `cuda:0,cuda:1`; `auto` is every GPU, or the CPU.

    Raises:
        ConfigError: one of them is not here.
    """
    first = resolve_device(names) if names == "auto" else CPU
    if first.type == "cuda":
        return [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    return [resolve_device(name.strip()) for name in names.split(",")]


def unusable_gpu() -> str:
    """Say why torch cannot use a GPU that is here, and what to do; empty if it can, or none is."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "all") in {"", "-1", "none", "NoDevFiles"}
    if hidden or not (NVIDIA_DRIVER.is_file() or torch.cuda.is_available()):
        return ""
    if not torch.cuda.is_available():
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"
        driver = NVIDIA_DRIVER.read_text().partition("\n")[0].removeprefix("NVRM version:").strip()
        return (
            f"there is an NVIDIA GPU, but this torch ({torch.__version__}, {built}) cannot use it "
            f"with its driver ({driver}); install a newer driver, or a torch for this one "
            "(https://pytorch.org/get-started)"
        )
    major, minor = torch.cuda.get_device_capability(0)
    codes = [code.rpartition("_") for code in torch.cuda.get_arch_list()]
    numbers = [(kind, int("".join(filter(str.isdigit, number)))) for kind, _, number in codes]
    own = 10 * major + minor
    runs = any(kind == "sm" and n // 10 == major and n <= own for kind, n in numbers)
    compiles = any(kind == "compute" and n <= own for kind, n in numbers)
    if runs or compiles:
        return ""
    name = torch.cuda.get_device_name(0)
    return (
        f"torch {torch.__version__} has no code for {name} (compute capability {major}.{minor}; "
        f"it has {' '.join(torch.cuda.get_arch_list())}); install a torch that has "
        "(https://pytorch.org/get-started)"
    )


def device_names(devices: Iterable[torch.device]) -> list[str]:
    """Return devices in words, such as `cuda:0 (NVIDIA H200)`."""
    return [
        f"{each} ({torch.cuda.get_device_name(each)})" if each.type == "cuda" else str(each)
        for each in devices
    ]


@contextmanager
def exact_float32() -> Iterator[None]:
    """Let float32 be float32 inside the `with` block: no TF32 in products and convolutions."""
    matmul = torch.backends.cuda.matmul
    before = matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = False, False
    try:
        yield
    finally:
        matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def cpu_cores() -> int:
    """Return how many CPU cores this process may use."""
    from joblib import cpu_count  # noqa: PLC0415

    return int(cpu_count())


@contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """Let torch use `count` CPU threads inside the `with` block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def seeded(seed: int, device: torch.device = CPU) -> Iterator[None]:
    """Seed torch's generators of the CPU and `device`, and give them back as they were.

    All threads draw from the same, so one that seeds them too waits until this block has ended.
    """
    gpus = [device] if device.type == "cuda" else []
    with _drawing, torch.random.fork_rng(devices=gpus):
        torch.default_generator.manual_seed(seed)
        for gpu in gpus:
            with torch.cuda.device(gpu):
                torch.cuda.manual_seed(seed)
        yield
