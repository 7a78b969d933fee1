"""Connecting to a Ray cluster: a running one, one named by address, or a new one here."""

import math
import os
import secrets
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any, NamedTuple

from memfeat.errors import ConfigError

ADDRESS = "RAY_ADDRESS"
STORE_BYTES = 256_000_000  # jobs are small; Ray would reserve a third of the memory
FINEST = 10_000  # Ray counts resources in parts of this
# Read when Ray is imported. Without the first, Ray prints on stdout, which is for data, that a
# worker died; the pool logs it. The second is meant for systems whose firewall asks about every
# socket, and works on all: Ray then listens on the loopback address only.
QUIET = {"RAY_DEDUP_LOGS_SKIP_REGEX": "^"}
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
# Ray would start a process for each core, which no actor of ours takes, for theirs have variables.
LEAN = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_prestart_worker_first_driver": "0"}
CONNECT_SECONDS = 10.0
AUTH_PREFIX = "RAY_AUTH"
AUTH_MODE = "RAY_AUTH_MODE"  # Ray sets it when it starts


class Resources(NamedTuple):
    """What Ray reserves for one actor.

    Attributes:
        cpus: CPU cores; may be a fraction.
        gpus: GPUs; may be a fraction below 1. The actor sees no others.
        threads: CPU threads of its numeric libraries, on which the last bits of results depend;
            None for as many as a local process would have.
    """

    cpus: float = 1
    gpus: float = 0
    threads: int | None = None


@dataclass(frozen=True)
class Cluster:
    """The resources of a cluster, in use or not.

    Attributes:
        machines: for each that is alive, its resources by name, such as `CPU` and `GPU`.
    """

    machines: tuple[Mapping[str, float], ...]

    @property
    def cpus(self) -> int:
        """CPU cores of all machines."""
        return int(sum(machine.get("CPU", 0) for machine in self.machines))

    @property
    def gpus(self) -> int:
        """GPUs of all machines."""
        return int(sum(machine.get("GPU", 0) for machine in self.machines))

    def divide(self, workers: int = 0, *, gpu: bool) -> tuple[int, Resources]:
        """Return a number of workers, and the resources of each that let all run at once.

        Args:
            workers: how many; 0 for one a GPU if `gpu` and there are any, otherwise one a core.
            gpu: whether GPUs are of use, where there are any.
        """
        gpus, cpus = (self.gpus if gpu else 0), max(1, self.cpus)
        count = workers or gpus or cpus
        # Whole parts of a GPU, for one worker needs its part of a single one.
        part = _rounded_down(1 / math.ceil(count / gpus)) if gpus else 0
        return count, Resources(_rounded_down(min(1, cpus / count)), part)

    def cpus_each(self, workers: int, *, gpu: bool) -> int:
        """Return the CPU cores of the worker that has the fewest, if all machines get their share.

        A worker that reserves more has no room on the smallest machine, which would stay idle.

        Args:
            workers: how many there are on all machines.
            gpu: whether they are where the GPUs are, as many as each machine has of them.
        """
        hosts = [m for m in self.machines if m.get("GPU", 0)] if gpu else self.machines
        shares = [m.get("GPU", 0) / self.gpus if gpu else 1 / len(hosts) for m in hosts]
        own = [math.ceil(workers * share) for share in shares]
        return int(min(m.get("CPU", 0) // n for m, n in zip(hosts, own, strict=True)))

    def require(self, needed: Resources) -> None:
        """Check that some machine has room for one worker.

        Raises:
            ConfigError: none has.
        """
        for machine in self.machines:
            if machine.get("CPU", 0) >= needed.cpus and machine.get("GPU", 0) >= needed.gpus:
                return
        raise ConfigError(
            f"a worker needs {needed.cpus:g} CPUs and {needed.gpus:g} GPUs, and no machine of the "
            f"Ray cluster has them: it has {self.cpus} CPUs and {self.gpus} GPUs on "
            f"{len(self.machines)} machines. Start Ray with more, or ask for less"
        )


@contextmanager
def ray_cluster() -> Iterator[Cluster]:
    """Connect to a Ray cluster while the context lasts.

    That is the one that this process is connected to already; otherwise the one that `RAY_ADDRESS`
    names; otherwise a new one on this machine, which listens on the loopback address only, without
    dashboard, and ends with the context. All machines of a cluster need the same environment, with
    memfeat, and the same folders for videos, caches and runs.

    Raises:
        ConfigError: Ray is not installed, or the cluster cannot be reached or started.
    """
    ray = load_ray()
    ours = not ray.is_initialized()
    if ours:
        _connect(ray)
    try:
        yield Cluster(tuple(each["Resources"] for each in ray.nodes() if each["Alive"]))
    finally:
        if ours:
            ray.shutdown()


def load_ray() -> Any:
    """Import Ray, which is optional and takes a second.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        with _environment(QUIET if os.environ.get(ADDRESS) else QUIET | LOOPBACK):
            return import_module("ray")
    except ImportError as error:
        raise ConfigError(
            f"engine 'ray' needs Ray, which cannot be imported: {error}. "
            "pip install 'memfeat[ray]', or choose the engine 'local'"
        ) from error


def _connect(ray: Any) -> None:
    address = os.environ.get(ADDRESS) or "local"
    settings = {"address": address, "log_to_driver": False, "logging_level": "error"}
    variables = LEAN
    require_listener(address)
    if address == "local":
        settings |= {"include_dashboard": False, "object_store_memory": STORE_BYTES}
        if not any(name.startswith(AUTH_PREFIX) for name in os.environ):
            variables = LEAN | own_token()
    in_main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM) if in_main else None
    try:
        with _environment(variables, AUTH_MODE):
            ray.init(**settings)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        reason = " ".join(str(error).split()) or repr(error)
        what, advice = "start Ray", "Choose the engine 'local' where it cannot be had"
        if address != "local":
            what = f"join the Ray cluster that {ADDRESS} names, {address!r}"
            advice = "`ray status` tells whether it is there; if it has a token, give that to Ray "
            advice += "(RAY_AUTH_MODE=token), and unset the variable to start one here"
        raise ConfigError(f"cannot {what}: {reason}. {advice}") from error
    finally:
        if in_main:
            signal.signal(signal.SIGTERM, before)  # Ray sets a handler of its own


def require_listener(address: str) -> None:
    """Check that something listens at `host:port`, where Ray would try for many minutes.

    Raises:
        ConfigError: it cannot be connected to.
    """
    host, _, port = address.rpartition(":")
    if "/" in address or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"cannot reach the Ray cluster that {ADDRESS} names, {address!r}: {error}. Start it "
            "with `ray start --head`, or unset the variable to start one here"
        ) from error


@cache
def own_token() -> dict[str, str]:
    """Return a token that keeps other users of this machine from using our Ray.

    Ray would leave one of its own in the home folder. It remembers the first that it sees.
    """
    return {"RAY_AUTH_TOKEN": secrets.token_hex(32)}


@contextmanager
def _environment(variables: Mapping[str, str], *others: str) -> Iterator[None]:
    """Set environment variables; on leaving, restore them and `others`."""
    before = {name: os.environ.get(name) for name in (*variables, *others)}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _rounded_down(part: float) -> float:
    return math.floor(part * FINEST) / FINEST
