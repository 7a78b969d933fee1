"""Times extraction and scoring with threads that spin and that sleep, on a busy machine.

torch's CPU threads wait for each other thousands of times a second, and spin meanwhile unless
`OMP_WAIT_POLICY` says otherwise, as memfeat has it. Clips are generated, features made up. Nothing
but the time they take means anything.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import click
from features import records, write_cache
from generated import CLIP_FRAMES, write_clips
from measuring import Timings, in_turn, machine
from rich.progress import track

from memfeat.manifest import write_manifest

SIDES = {
    "spinning": {"OMP_WAIT_POLICY": "ACTIVE", "GOMP_SPINCOUNT": "300000"},  # as GNU's own default
    "sleeping": {},
}
ENCODER = "efficientnet-lite0"
VIDEOS = 64
ROWS = {
    f"{figure}_{load}": (f"{label}, {load}{unit}", digits)
    for load in ("quiet", "busy")
    for figure, label, unit, digits in (
        ("extract_spinning", "extract, spinning", ": seconds", 1),
        ("extract_sleeping", "extract, sleeping", ": seconds", 1),
        ("extract_ratio", "extract, spinning / sleeping", "", 2),
        ("effects_spinning", "effects of frames, spinning", ": seconds", 1),
        ("effects_sleeping", "effects of frames, sleeping", ": seconds", 1),
        ("effects_ratio", "effects of frames, spinning / sleeping", "", 2),
    )
}


@contextmanager
def busy_core(busy: bool) -> Iterator[None]:
    """Let another process use a core all the time."""
    command = [sys.executable, "-c", "while True: pass" if busy else ""]
    with subprocess.Popen(command) as other:
        try:
            yield
        finally:
            other.kill()


def memfeat(*arguments: object, **variables: str) -> None:
    """Run a command of memfeat on the CPU."""
    command = [sys.executable, "-m", "memfeat", *map(str, arguments), "--device", "cpu"]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, **variables})


def prepare(home: Path) -> None:
    """Write clips, features, and a Transformer that is trained on these for an epoch."""
    write_manifest(home / "clips.csv", write_clips(home, "360p"))
    cache = write_cache(home / "features", VIDEOS)
    write_manifest(home / "scores.csv", records(tuple(cache), VIDEOS // 2))
    made = ["--manifest", home / "scores.csv", "--cache", home / "features", "--run", home / "run"]
    memfeat("train", *made, "--aggregator", "transformer", "--head", "linear", "--max-epochs", 1)


def extract(home: Path, variables: Mapping[str, str]) -> None:
    """Encode the clips into a new cache."""
    with tempfile.TemporaryDirectory(dir=home) as cache:
        of_clips = ["--manifest", home / "clips.csv", "--encoder", ENCODER]
        memfeat("extract", *of_clips, "--cache", cache, **variables)


def find_effects(home: Path, variables: Mapping[str, str]) -> None:
    """Score the videos of the cache without each of their frames in turn."""
    with tempfile.TemporaryDirectory(dir=home) as folder:
        output = ["--output", f"{folder}/scores.csv", "--effects", f"{folder}/effects.csv"]
        memfeat("predict", home / "run", "--cache", home / "features", *output, **variables)


STAGES = {"extract": extract, "effects": find_effects}


@click.command()
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1))
@click.option("--output", default=Path("runs/bench-busy.json"), show_default=True,
              type=click.Path(dir_okay=False, path_type=Path))  # fmt: skip
def main(rounds: int, output: Path) -> None:
    """Time extraction and scoring beside a process that keeps a core busy, and alone."""
    timings, facts = Timings(), machine()
    with tempfile.TemporaryDirectory(prefix="bench-busy-") as name:
        home = Path(name)
        prepare(home)
        for number in track(range(rounds), transient=True):
            for load in ("quiet", "busy"):
                for stage, run in STAGES.items():
                    sides = {side: partial(run, home, own) for side, own in SIDES.items()}
                    with busy_core(load == "busy"):
                        seconds = in_turn(number, sides)
                    figures = {f"{stage}_{side}_{load}": seconds[side] for side in SIDES}
                    ratio = seconds["spinning"] / seconds["sleeping"]
                    timings.add(**figures, **{f"{stage}_ratio_{load}": ratio})
    timings.report(
        output,
        ROWS,
        f"Threads that spin or sleep while they wait, {rounds} rounds",
        f"4 clips of {CLIP_FRAMES} frames, {ENCODER}; {VIDEOS} videos; starts of commands included",
        facts,
    )


if __name__ == "__main__":
    main()
