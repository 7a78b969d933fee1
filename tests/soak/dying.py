"""Extraction in processes that are killed or kill themselves, and what is left of it."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

from extracting import config, manifest

from memfeat.cache import Cache, verify
from memfeat.errors import CacheError
from memfeat.extraction import ExtractionSummary, extract

# The steps of writing a shard, by the system's call that each ends or begins with. The child takes
# its own life there, by the signal that nothing can catch.
STEPS = {
    "before the part file": "pathlib.Path.open",
    "before room is claimed": "os.posix_fallocate",
    "before its size is set": "os.truncate",
    "before it is on disk": "os.fsync",
    "before it is in place": "pathlib.Path.replace",
    "after it is in place": "os.open",
}
CHILD = """
import importlib, os, signal, sys
from pathlib import Path
sys.path[:0] = ["tests", "tests/soak"]
from dying import run

def die_at(place, wanted):
    owner, _, name = place.rpartition(".")
    module, _, kind = owner.partition(".")
    owner = importlib.import_module(module)
    owner = getattr(owner, kind) if kind else owner
    whole, seen = getattr(owner, name), 0
    def call(*arguments, **named):
        nonlocal seen
        if {"os.open": is_cache, "pathlib.Path.open": is_part}.get(place, any_file)(*arguments):
            seen += 1
            if seen == wanted:
                os.kill(os.getpid(), signal.SIGKILL)
        return whole(*arguments, **named)
    setattr(owner, name, call)

def any_file(*arguments):
    return True

def is_cache(path, *arguments):
    return str(path) == sys.argv[2]

def is_part(path, *arguments):
    return path.name.endswith(".part") and "x" in str(arguments)

if __name__ == "__main__":
    if len(sys.argv) > 3:
        die_at(sys.argv[3], int(sys.argv[4]))
    run(Path(sys.argv[1]), Path(sys.argv[2]), on_start=lambda *_: print("ready", flush=True))
"""


def run(clips: Path, cache: Path, **how: object) -> ExtractionSummary:
    """Extract all clips of a folder."""
    return extract(manifest(clips), config(cache, decoders=1), **how)


def begin(clips: Path, cache: Path, *step: object) -> subprocess.Popen[str]:
    """Start extraction in a process of its own, which may kill itself at a step."""
    command = [sys.executable, "-c", CHILD, *map(str, (clips, cache, *step))]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_until_ready(process: subprocess.Popen[str]) -> None:
    """Wait until the encoder is loaded, or the process is gone."""
    assert process.stdout is not None
    process.stdout.readline()


def end(process: subprocess.Popen[str]) -> int:
    """Wait for a process and close its pipes; return how it ended."""
    process.communicate()
    return process.returncode


def unreadable(cache: Path) -> int:
    """Count the shards that `verify` finds fault with."""
    return len(verify(cache)) if any(cache.glob("shard-*.h5")) else 0


def doubled(cache: Path) -> int:
    """Count the videos that several shards hold."""
    places: Counter[str] = Counter()
    for path in cache.glob("shard-*.h5"):
        alone = cache.parent / f"{cache.name}-alone"
        alone.mkdir(exist_ok=True)
        link = alone / path.name
        link.hardlink_to(path)
        try:
            places.update(list(Cache.open(alone).entries))
        except CacheError:
            continue  # counted as unreadable
        finally:
            link.unlink()
    return sum(count - 1 for count in places.values())
