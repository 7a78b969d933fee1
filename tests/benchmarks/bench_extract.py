"""Times stage 1 beside the common way of doing it, the encoder alone, and decoding alone.

The clips are generated and the weights random. Nothing but the time they take means anything.
"""

import csv
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import click
import numpy as np
import torch
from decoders import (
    fake_figures,
    has_torchcodec,
    longest_pause,
    read_into_memory,
    records_of,
    start_and_private_mb,
    through_encoder,
    torchcodec_decoded,
)
from generated import CLIP_FRAMES, SIZES, pictures, write_clips
from measuring import Timings, family, in_turn, machine, peak_memory
from peers import normalised, peer_features, peer_frames
from rich.progress import track
from skimage import data

from memfeat.cache import Cache
from memfeat.config import ExtractConfig
from memfeat.decoding import DecodedFrames, DecodeSettings, decode_ahead
from memfeat.devices import cpu_threads
from memfeat.encoders import FrameEncoder, create_encoder
from memfeat.extraction import extract
from memfeat.manifest import Manifest, VideoRecord
from memfeat.video import write_video

ENCODER = "ViT-B-32"
BATCH = 32
TURNS = 2  # of each clip in a round, so that it lasts for half a minute
PAPER_SIZE = 336  # pixels a side that ViT-L/14@336 takes
SMALL = "timm/test_vit"  # so small that a long video takes seconds
WIDE = "cls+6x6"  # yet with it 2,368 numbers a frame, more than ViT-L/14's 1,024
LONG = 20_000  # frames


def family_cpu_seconds() -> float:
    """Return the CPU time that this process and its children have used; they have not ended."""
    total = time.process_time()
    for pid in family(os.getpid()):
        if pid != os.getpid():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def cpu_ms_a_frame(work: Callable[[], int], times: int) -> float:
    """Return the CPU milliseconds for each of the frames that `work` counts."""
    started = family_cpu_seconds()
    frames = sum(work() for _ in range(times))
    return (family_cpu_seconds() - started) * 1e3 / frames


def decoded(records: Sequence[VideoRecord], size: int) -> int:
    """Decode and resize as extraction does, up to where the encoder takes over; count frames."""
    frame, count = np.empty((size, size, 3), np.uint8), 0
    with decode_ahead(records, DecodeSettings(size), decoders=1) as events:
        for event in events:
            if isinstance(event, DecodedFrames):
                for pixels in event.pixels:
                    np.copyto(frame, pixels)
                count += len(event.pixels)
    return count


def peer_decoded(records: Sequence[VideoRecord], size: int, encoder: FrameEncoder) -> int:
    """Do the same the peers' way."""
    return sum(
        normalised(pixels, encoder).shape[0] // 3
        for record in records
        for pixels in peer_frames(record.path, size)
    )


def time_preprocessing(
    clips: dict[str, list[VideoRecord]], encoder: FrameEncoder, rounds: int, timings: Timings
) -> None:
    """Measure the CPU time of decoding and resizing, at the paper's size and the encoder's."""
    for number in track(range(rounds), "decoding", transient=True):
        for name, records in clips.items():
            for size in (PAPER_SIZE, encoder.image_size):
                sides = {
                    "preprocess": partial(decoded, records, size),
                    "peer_preprocess": partial(peer_decoded, records, size, encoder),
                }
                if number == 0:
                    sides["preprocess"]()  # starts the process
                order = list(sides)[:: 1 if number % 2 else -1]
                cpu = {side: cpu_ms_a_frame(sides[side], times=2) for side in order}
                suffix = name if size == PAPER_SIZE else f"{name}_{size}px"
                timings.add(
                    **{f"{side}_cpu_ms_per_frame_{suffix}": cpu[side] for side in sides},
                    **{
                        f"peer_over_ours_preprocess_cpu_{suffix}": cpu["peer_preprocess"]
                        / cpu["preprocess"]
                    },
                )


def time_torchcodec(records: Sequence[VideoRecord], rounds: int, timings: Timings) -> None:
    """Measure the CPU time of decoding and resizing beside torchcodec's, if that is installed."""
    if not has_torchcodec():
        click.echo("torchcodec, or FFmpeg's libraries, are not installed: not measured")
        return
    sides = {"ours": decoded, "reader": read_into_memory, "torchcodec": torchcodec_decoded}
    decoded(records, PAPER_SIZE)  # starts the process
    for number in track(range(2 * rounds), "torchcodec", transient=True):
        order = [*list(sides)[number % 3 :], *list(sides)[: number % 3]]
        cpu = {
            side: cpu_ms_a_frame(partial(sides[side], records, PAPER_SIZE), times=2)
            for side in order
        }
        timings.add(
            torchcodec_cpu_ms_per_frame_360p=cpu["torchcodec"],
            torchcodec_over_ours_decode_cpu=cpu["torchcodec"] / cpu["ours"],
            torchcodec_over_reader_cpu=cpu["torchcodec"] / cpu["reader"],
        )


def time_decoders(home: Path, rounds: int, timings: Timings) -> None:
    """Measure what many decoders give: of a fixed rate, and two real ones before a tiny encoder."""
    timings.add(**fake_figures(20))
    encoder = create_encoder(SMALL, "random")
    pixels = next(pictures(data.astronaut(), 360, 640))

    def clip(frames: int, *shape: slice) -> Path:
        path = home / f"turning-{frames}.mp4"
        write_video(path, (np.roll(pixels[shape], n, axis=1) for n in range(frames)), fps=25)
        return path

    short, long, film, tiny = clip(90), clip(900), clip(3600), clip(10, slice(64), slice(64))
    kinds = {
        "90": records_of([short] * 40),
        "900": records_of([long] * 4),
        "mixed": records_of([*[short] * 4, film, *[short] * 36]),
    }
    for number in track(range(rounds), "many decoders", transient=True):
        rates = {}
        for kind in list(kinds)[:: 1 if number % 2 else -1]:
            started = time.perf_counter()
            frames = through_encoder(kinds[kind], encoder, BATCH, decoders=2)
            rates[kind] = frames / (time.perf_counter() - started)
        seconds, private = start_and_private_mb()
        timings.add(
            decode_frames_per_second_90=rates["90"],
            decode_900_over_90=rates["900"] / rates["90"],
            decode_mixed_over_90=rates["mixed"] / rates["90"],
            decoder_start_seconds=seconds,
            decoder_private_mb=private,
        )
    timings.add(longest_pause_seconds=longest_pause(records_of([tiny] * 1200), 64, decoders=2))


def time_pipeline(
    name: str,
    records: Sequence[VideoRecord],
    encoder: FrameEncoder,
    home: Path,
    rounds: int,
    timings: Timings,
) -> None:
    """Time extraction, the encoder alone on ready frames, and the peers' way, in turn."""
    batch = torch.randint(0, 256, (BATCH, *encoder.input_shape), dtype=torch.uint8)
    records = [
        record.model_copy(update={"video_id": f"{record.video_id}-{turn}"})
        for turn in range(TURNS)
        for record in records
    ]
    frames = CLIP_FRAMES * len(records)
    manifest = Manifest(home / "clips.csv", tuple(records))
    seconds: dict[str, float] = {}

    def ours() -> None:
        config = ExtractConfig(
            manifest=manifest.path,
            cache=Path(tempfile.mkdtemp(dir=home)),
            encoder=ENCODER,
            weights="random",
            batch_size=BATCH,
            device="cpu",
        )
        seconds["ours"] = extract(manifest, config).seconds  # without building the encoder
        seconds["rows"] = len(Cache.open(config.cache).load().values)

    def alone() -> None:
        for _ in range(frames // BATCH):
            encoder.encode(batch)

    def peer() -> None:
        for record in records:
            peer_features(record.path, encoder, BATCH)

    ours()  # what starts once, starts now
    for number in track(range(rounds), name, transient=True):
        times = in_turn(number, {"encoder": alone, "ours": ours, "peer": peer})
        if seconds["rows"] != frames:
            raise RuntimeError(f"{seconds['rows']} frames of {frames} came through")
        encode = times["encoder"] / frames
        decode = timings.median(f"preprocess_cpu_ms_per_frame_{name}_{encoder.image_size}px") / 1e3
        # Decoding takes its CPU time from cores that the encoder would use otherwise.
        ceiling = encode + decode / (os.cpu_count() or 1)
        own = seconds["ours"] / frames
        timings.add(
            **{
                f"encoder_frames_per_second_{name}": 1 / encode,
                f"ceiling_frames_per_second_{name}": 1 / ceiling,
                f"frames_per_second_{name}": 1 / own,
                f"peer_frames_per_second_{name}": frames / times["peer"],
                f"pipeline_over_ceiling_{name}": ceiling / own,
                f"peer_over_ours_end_to_end_{name}": times["peer"] / seconds["ours"],
            }
        )


def measure_memory(home: Path, timings: Timings) -> None:
    """Measure the peak of `memfeat extract` for few, many and long videos."""
    pattern = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)

    def clip(name: str, frames: int) -> Path:
        rolled = (np.roll(pattern, n, axis=1) for n in range(frames))
        write_video(home / name, rolled, fps=25)
        return home / name

    def peak(name: str, paths: Sequence[Path]) -> float:
        manifest = home / f"{name}.csv"
        with manifest.open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["video_id", "path", "score", "split"])
            rows.writerows([f"v{n}", path, "", "test"] for n, path in enumerate(paths))
        settings = ["--encoder", SMALL, "--weights", "random", "--tokens", WIDE, "--device", "cpu"]
        where = ["--manifest", str(manifest), "--cache", str(home / f"cache-{name}")]
        return peak_memory([sys.executable, "-m", "memfeat", "extract", *where, *settings]) / 1e6

    short, long = clip("short.mp4", 90), clip("long.mp4", LONG)
    few, many = peak("few", [short] * 20), peak("many", [short] * 400)
    timings.add(
        rss_20_mb=few,
        rss_400_mb=many,
        rss_400_over_20=many / few,
        long_clip_adds_mb=peak("long", [short] * 19 + [long]) - few,
    )


ROWS = {
    "preprocess_cpu_ms_per_frame_360p": ("decode to 336 px, 360p: CPU ms a frame", 2),
    "preprocess_cpu_ms_per_frame_720p": ("decode to 336 px, 720p: CPU ms a frame", 2),
    "peer_preprocess_cpu_ms_per_frame_360p": ("peers' decode to 336 px, 360p: CPU ms a frame", 2),
    "peer_preprocess_cpu_ms_per_frame_720p": ("peers' decode to 336 px, 720p: CPU ms a frame", 2),
    "peer_over_ours_preprocess_cpu_360p": ("peers / ours, 360p to 336 px", 2),
    "peer_over_ours_preprocess_cpu_720p": ("peers / ours, 720p to 336 px", 2),
    "encoder_frames_per_second_360p": ("encoder alone: frames/s, 360p", 2),
    "ceiling_frames_per_second_360p": ("with decoding on its cores, at best, 360p", 2),
    "frames_per_second_360p": ("ours: frames/s, 360p", 2),
    "peer_frames_per_second_360p": ("peers' way: frames/s, 360p", 2),
    "pipeline_over_ceiling_360p": ("ours / at best, 360p", 3),
    "peer_over_ours_end_to_end_360p": ("peers' seconds / ours, 360p", 3),
    **{
        f"fake_decoders_{kind}": (f"eight fake decoders of 200 frames/s, {label}: frames/s", 0)
        for kind, label in (
            ("90", "clips of 90 frames"),
            ("400", "of 400"),
            ("900", "of 900"),
            ("mixed", "of 90 beside a film"),
        )
    },
    "decode_frames_per_second_90": ("two decoders, clips of 90 frames: frames/s", 0),
    "decode_900_over_90": ("clips of 900 frames / of 90", 3),
    "decode_mixed_over_90": ("clips of 90 and one of 3,600 / of 90", 3),
    "decoder_start_seconds": ("start of a decoder: seconds", 3),
    "decoder_private_mb": ("its own memory before a frame: MB", 1),
    "longest_pause_seconds": ("longest pause over 1,200 clips: seconds", 3),
    "torchcodec_cpu_ms_per_frame_360p": ("torchcodec to 336 px, 360p: CPU ms a frame", 2),
    "torchcodec_over_ours_decode_cpu": ("torchcodec / ours", 2),
    "torchcodec_over_reader_cpu": ("torchcodec / ours in one process", 2),
    "rss_20_mb": ("peak memory, 20 videos: MB", 0),
    "rss_400_mb": ("peak memory, 400 videos: MB", 0),
    "rss_400_over_20": ("400 videos / 20", 3),
    "long_clip_adds_mb": (f"a clip of {LONG:,} frames adds: MB", 0),
}
SHORT = ("pipeline_over_ceiling", "peer_over_ours_preprocess_cpu", "peer_over_ours_end_to_end")


@click.command()
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1))
@click.option("--memory/--no-memory", default=True, help="Whether to measure peaks of memory.")
@click.option("--output", default=Path("runs/bench-extract.json"), show_default=True,
              type=click.Path(dir_okay=False, path_type=Path))  # fmt: skip
def main(rounds: int, memory: bool, output: Path) -> None:
    """Time stage 1 beside the common way, with random weights, on generated clips."""
    timings, facts = Timings(), machine()
    encoder = create_encoder(ENCODER, "random")
    with tempfile.TemporaryDirectory(prefix="bench-extract-") as name:
        home = Path(name)
        clips = {size: write_clips(home, size) for size in SIZES}
        with cpu_threads(1):  # those of a library that wait for each other use CPU time too
            time_preprocessing(clips, encoder, rounds, timings)
            time_torchcodec(clips["360p"], rounds, timings)
        time_decoders(home, rounds, timings)
        time_pipeline("360p", clips["360p"], encoder, home, rounds, timings)
        if memory:
            measure_memory(home, timings)
    threads = torch.get_num_threads()
    timings.report(
        output,
        ROWS,
        f"Stage 1, {ENCODER} with random weights, float32, batch {BATCH}, {rounds} rounds",
        f"generated clips of {CLIP_FRAMES} frames, {threads} threads",
        facts,
        clips="generated: photographs under a moving camera, with grain",
        encoder=f"{ENCODER}, random weights",
        **{name: timings.median(f"{name}_360p") for name in SHORT},
    )


if __name__ == "__main__":
    main()
