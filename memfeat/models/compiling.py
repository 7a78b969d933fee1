"""C++ of ours to a library that is loaded, by the compiler that the machine has.

The sources know nothing of torch, so a build takes two seconds and any C++17 compiler.
"""

import ctypes
import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

from memfeat.errors import MemfeatError
from memfeat.storage import remove_stale_parts, user_cache, write_atomically

COMPILERS = "c++", "g++", "clang++"
FLAGS = "-O3", "-std=c++17", "-ffp-contract=fast", "-shared", "-fPIC"
FOR_THIS_MACHINE = "-march=native"
BUILD_SECONDS = 300


class CompileError(MemfeatError):
    """Why there is no library."""


def compiled(source: Path, name: str) -> ctypes.CDLL:
    """Return the library that a source file makes on this machine.

    It is kept in the user's cache folder, under its name and what tells source, compiler and
    machine, so that only the first process builds.

    Raises:
        CompileError: there is no compiler, or it refuses.
        OSError, ValueError: it cannot be run, or the library not loaded.
    """
    compiler = _compiler()
    target, machine = _target(compiler)
    command = [*compiler, *FLAGS, *target]
    key = _digest(source.read_bytes() + "\0".join(command).encode() + machine)
    folder = user_cache()
    for path in sorted(folder.glob(f"{name}-{key}-*.so")) if folder else []:
        with suppress(OSError):
            if path.stem.endswith(_digest(path.read_bytes())):
                return ctypes.CDLL(str(path))
            # Loading damaged code could end the process.
            path.unlink()
    with tempfile.TemporaryDirectory(prefix="memfeat-") as temporary:
        built = Path(temporary) / f"{name}.so"
        _ask([*command, "-o", str(built), str(source)])
        content = built.read_bytes()
        # Without a cache folder that can be written, or run from, each process builds its own.
        with suppress(OSError):
            if folder:
                kept = folder / f"{name}-{key}-{_digest(content)}.so"
                remove_stale_parts(folder)
                write_atomically(kept, content)
                return ctypes.CDLL(str(kept))
        return ctypes.CDLL(str(built))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


def _compiler() -> list[str]:
    chosen = os.environ.get("CXX")
    if chosen:
        return shlex.split(chosen)
    found = next(filter(shutil.which, COMPILERS), None)
    if found is None:
        raise CompileError(
            f"there is none of {', '.join(COMPILERS)}; install one, or set CXX to one"
        )
    return [found]


def _target(compiler: list[str]) -> tuple[list[str], bytes]:
    """Return the flags that ask for all that this CPU can, and what is built under them.

    A home may be shared by machines that the same flags mean different code on.
    """
    list_macros = ["-dM", "-E", "-x", "c++", os.devnull]
    with suppress(CompileError):
        return [FOR_THIS_MACHINE], _ask([*compiler, FOR_THIS_MACHINE, *list_macros])
    # Some compilers know no such flag, and build for the CPU they run on as they are.
    return [], _ask([*compiler, *list_macros])


def _ask(command: list[str]) -> bytes:
    """Run a compiler; return what it printed."""
    null = subprocess.DEVNULL
    try:
        done = subprocess.run(  # noqa: S603
            command, stdin=null, capture_output=True, timeout=BUILD_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise CompileError(str(error)) from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        reason = next((line for line in said if "error" in line), *said[-1:] or ["it said nothing"])
        raise CompileError(f"{shlex.join(command)} ended with {done.returncode}: {reason}")
    return done.stdout
