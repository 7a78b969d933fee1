"""What memfeat makes of damaged files: each mutant is judged in a process of its own.

`judge` runs mutants of a kind in a child process, since a C library may crash or hang on them, and
goes on after the mutant that did. What the kinds are stands in `fuzzed`.
"""

import faulthandler
import json
import os
import resource
import traceback
from collections import Counter
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

from fuzzed import (
    CRASHED,
    GOOD,
    HUNG,
    REFUSED,
    UNCAUGHT,
    Files,
    Read,
    SeveralLinesError,
    check_line,
)
from mutating import mutants

from memfeat.errors import MemfeatError
from memfeat.workers.processes import worker_context

SECONDS_A_MUTANT = 120  # on a machine that has other things to do
ROOM = 2 << 30  # bytes that a child may take beyond what it has before the first mutant


@dataclass
class Tally:
    """How many mutants of a kind were tried, and how each ended; of the bad ones, the details."""

    kind: str
    verdicts: Counter[str] = field(default_factory=Counter)
    details: list[str] = field(default_factory=list)

    @property
    def tried(self) -> int:
        return self.verdicts.total()

    @property
    def bad(self) -> dict[str, int]:
        return {verdict: n for verdict, n in self.verdicts.items() if verdict not in GOOD}


def judge(kind: str, folder: Path, count: int, seed: int = 0) -> Tally:
    """Run `count` mutants of each file of a kind, in child processes."""
    tally, start = Tally(kind), 0
    while True:
        child = worker_context().Process(target=attempt, args=(kind, folder, count, seed, start))
        child.start()
        child.join()
        told = (folder / "verdicts").read_text().splitlines()
        errors = (folder / "errors").read_text(errors="replace")
        lines = [json.loads(line) for line in told if line.startswith("{")]
        ended = [line for line in lines if "verdict" in line]
        tally.verdicts.update(line["verdict"] for line in ended)
        tally.details += [line["why"] for line in ended if line["why"]]
        if child.exitcode == 0:
            return tally
        begun = [line for line in lines if "begun" in line]
        if not begun or len(begun) == len(ended):
            raise RuntimeError(f"fuzzing {kind} itself failed:\n{errors[-3000:]}")
        hung = "Timeout (" in errors
        tally.verdicts[HUNG if hung else CRASHED] += 1
        tally.details.append(f"mutant {begun[-1]['begun']}: {errors[-1500:]}")
        start = begun[-1]["begun"] + 1


KINDS = {
    "shards": "fuzzed.shards:shards",
    "manifests": "fuzzed.manifests:manifests",
    "configs": "fuzzed.configs:configs",
    "checkpoints": "fuzzed.checkpoints:checkpoints",
    "run folders": "fuzzed.runs:runs",
    "reports": "fuzzed.runs:reports",
}


def files_of(kind: str, folder: Path) -> Files:
    """Make a kind's files, and give each with what judges its damaged bytes once written."""
    folder.mkdir(parents=True, exist_ok=True)
    module, _, name = KINDS[kind].partition(":")
    made: Files = getattr(import_module(module), name)(folder)
    return made


def _verdict(read: Read, damaged: bytes) -> tuple[str, str]:
    try:
        verdict = read(damaged)
    except MemfeatError as error:
        try:
            check_line(str(error))
        except SeveralLinesError as several:
            return UNCAUGHT, f"{type(error).__name__} of several lines: {several}"
        return REFUSED, ""
    except Exception:
        return UNCAUGHT, traceback.format_exc()[-1500:]
    return verdict, "" if verdict in GOOD else f"{verdict}: {damaged[:200]!r}"


def _limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + ROOM
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def attempt(kind: str, folder: Path, count: int, seed: int, start: int) -> None:
    """Judge mutants `start` and after, and write a line when one begins and when it ends."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in ((1, "verdicts"), (2, "errors")):
        with (folder / name).open("w") as file:
            os.dup2(file.fileno(), number)
    files = list(files_of(kind, folder / f"from-{start}"))
    _limit_memory()
    number = 0
    for path, read in files:
        whole = path.read_bytes()
        for damaged in mutants(whole, -(-count // len(files)), seed):
            if number >= start:
                print(json.dumps({"begun": number}), flush=True)
                path.write_bytes(damaged)
                faulthandler.dump_traceback_later(SECONDS_A_MUTANT, exit=True)
                verdict, why = _verdict(read, damaged)
                faulthandler.cancel_dump_traceback_later()
                why = f"{path.name}, mutant {number}: {why}" if why else ""
                print(json.dumps({"verdict": verdict, "why": why}), flush=True)
            number += 1
        path.write_bytes(whole)
