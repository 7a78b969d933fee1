"""File systems whose locks need a writable descriptor, as NFS does, or that have none."""

import atexit
import errno
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import pytest
from compilers import COMPILER

SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>

int flock(int file, int operation) {
    int error = atoi(getenv("FLOCK_ERROR"));
    int only_read = (fcntl(file, F_GETFL) & O_ACCMODE) == O_RDONLY;
    if (error && (error != EBADF || (only_read && operation & LOCK_EX))) {
        errno = error;
        return -1;
    }
    return ((int (*)(int, int))dlsym(RTLD_NEXT, "flock"))(file, operation);
}
"""
ERRORS = ("EBADF", "ENOSYS", "ENOLCK", "EOPNOTSUPP")
needs_shim = pytest.mark.skipif(
    COMPILER is None or sys.platform != "linux", reason="there is no compiler, or no LD_PRELOAD"
)


@cache
def library() -> Path:
    folder = Path(mkdtemp())
    atexit.register(shutil.rmtree, folder)
    (folder / "shim.c").write_text(SHIM)
    built = folder / "shim.so"
    command = [COMPILER, "-x", "c", "-shared", "-fPIC", "-o", built, folder / "shim.c", "-ldl"]
    subprocess.run(command, check=True)
    return built


def lockless(error: str) -> dict[str, str]:
    """The environment of a process in which `flock` fails with an error."""
    shim = {"LD_PRELOAD": str(library()), "FLOCK_ERROR": str(getattr(errno, error))}
    return os.environ | shim | {"PYTHONPATH": os.pathsep.join(sys.path)}
