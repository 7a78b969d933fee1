"""Where torch computes, and its global state: threads and generators, set and given back."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from memfeat.errors import ConfigError

CPU = torch.device("cpu")


def resolve_device(name: str) -> torch.device:
    """Return the device called `name`; `auto` is the first GPU, or else the CPU.

    Raises:
        ConfigError: no such device here.
    """
    if name == "auto":
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
    if names == "auto" and torch.cuda.is_available():
        return [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    return [resolve_device(name.strip()) for name in names.split(",")]


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
    """Seed torch's generators of the CPU and `device`, and give them back as they were."""
    gpus = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=gpus):
        torch.default_generator.manual_seed(seed)
        for gpu in gpus:
            with torch.cuda.device(gpu):
                torch.cuda.manual_seed(seed)
        yield
