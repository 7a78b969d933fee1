"""Times both stages on a GPU: the encoder alone, extraction beside it, and epochs of training.

The clips are generated, the features made up and the weights random. Nothing but the time they take
means anything. With `--device cpu` all of it runs without a GPU, to try the script.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from decoders import records_of
from features import EPOCH_FRAMES, records, write_cache
from measuring import Timings, machine
from open_clip.transformer import QuickGELU
from torch import nn

from memfeat.config import ExtractConfig, TrainConfig
from memfeat.decoding import DecodedFrames, DecodeSettings, decode_ahead
from memfeat.devices import CPU, device_names, resolve_device
from memfeat.encoders import FrameEncoder, create_encoder
from memfeat.extraction import extract
from memfeat.manifest import Manifest
from memfeat.models.gru import using_backend
from memfeat.storage import write_json
from memfeat.training import Examples, fit, resolve_options
from memfeat.video import write_video

FACTOR = 1.702  # QuickGELU is x sigmoid(1.702 x)
TOLERANCE = 1e-4  # 1 - cosine to the plain form in the same precision


def fold_quickgelu(module: nn.Module) -> None:
    """Make x sigmoid(1.702 x) one kernel: silu(1.702 x) / 1.702, factors in the layers beside."""
    for block in module.modules():
        mlp = getattr(block, "mlp", None)
        if isinstance(mlp, nn.Sequential) and isinstance(mlp.gelu, QuickGELU):
            with torch.no_grad():
                mlp.c_fc.weight.mul_(FACTOR)
                mlp.c_fc.bias.mul_(FACTOR)
                mlp.c_proj.weight.div_(FACTOR)
            mlp.gelu = nn.SiLU()


def seconds_of(work: Callable[[], object], device: torch.device, least: float) -> float:
    """Return the seconds of one call, repeated for `least` seconds after one that is not timed."""
    work()
    count, started = 0, time.perf_counter()
    while time.perf_counter() - started < least:
        work()
        count += 1
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    return (time.perf_counter() - started) / count


def time_encoder(
    name: str, device: torch.device, batch: int, least: float, timings: Timings
) -> None:
    """Time the encoder on a batch that is ready, in each precision and form."""
    reference = create_encoder(name, "random", device=str(device), precision="float32")
    shape = (batch, *reference.input_shape)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, pin_memory=device.type == "cuda")
    exact = reference.encode(pixels)
    for precision in ("float32", "bfloat16", "float16"):
        plain: torch.Tensor | None = None
        for form in ("eager", "folded", "compiled"):
            encoder = create_encoder(
                name,
                "random",
                device=str(device),
                precision="float32" if form == "folded" else precision,
                compiled=form == "compiled",
            )
            if form == "folded":  # in float32, before it is rounded
                fold_quickgelu(encoder._module)
                encoder = rounded(encoder, precision)
            found = encoder.encode(pixels)
            plain = found if plain is None else plain
            key = f"{precision}_{form}"
            timings.add(
                **{
                    f"encoder_frames_per_second_{key}": batch
                    / seconds_of(lambda: encoder.begin(pixels).wait(), device, least),  # noqa: B023
                    f"error_to_float32_{key}": worst(found, exact),
                    f"error_to_eager_{key}": worst(found, plain),
                }
            )
            if form == "folded" and precision == "float32" and worst(found, plain) > TOLERANCE:
                raise RuntimeError(f"folding changes the features: {worst(found, plain):g}")


def rounded(encoder: FrameEncoder, precision: str) -> FrameEncoder:
    """Bring an encoder in float32 to another precision, in place."""
    from memfeat.encoders.encoder import PRECISIONS  # noqa: PLC0415

    encoder.precision, encoder._dtype = precision, PRECISIONS[precision]
    encoder._module.to(PRECISIONS[precision])
    return encoder


def worst(one: torch.Tensor, other: torch.Tensor) -> float:
    """Return the largest 1 - cosine of two batches of unit vectors."""
    return float((1 - (one.double() * other.double()).sum(1)).max())


def time_extraction(
    name: str, device: torch.device, batch: int, seconds: float, home: Path, timings: Timings
) -> None:
    """Time extraction of clips of 90, 400 and 900 frames, and mixed, beside the encoder alone."""
    generator = np.random.default_rng(0)
    pattern = generator.integers(0, 256, (45, 80, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)

    def clip(frames: int) -> Path:
        path = home / f"{frames}.mp4"
        write_video(path, (np.roll(pattern, n, axis=1) for n in range(frames)), fps=25)
        return path

    paths = {length: clip(length) for length in (90, 400, 900)}
    best = max(
        timings.median(key)
        for key in timings.rounds
        if key.startswith("encoder_frames_per_second") and "eager" in key
    )
    frames = int(best * seconds)
    kinds = {str(length): [path] * max(1, frames // length) for length, path in paths.items()}
    share = [paths[90]] * max(1, frames // 270)
    kinds["mixed"] = [*share[: len(share) // 2], *kinds["900"], *share, *kinds["400"]][
        : max(4, len(share) + 4)
    ]
    for kind, chosen in kinds.items():
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        config = ExtractConfig(
            manifest=home / "m.csv",
            cache=Path(tempfile.mkdtemp(dir=home)),
            encoder=name,
            weights="random",
            batch_size=batch,
            device=str(device),
        )
        summary = extract(Manifest(home / "m.csv", tuple(records_of(chosen))), config)
        rates = summary.as_dict()
        timings.add(
            **{
                f"extract_frames_per_second_{kind}": rates["frames_per_second"],
                f"extract_over_encoder_{kind}": rates["frames_per_second"] / best,
                f"extract_waited_for_frames_{kind}": rates["rates"]["waited_for_frames"],
            }
        )
        if device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(device) / 1e9
            timings.add(**{f"extract_peak_gb_{kind}": peak})
    timings.add(decoders_needed=best / decoder_frames_per_second(paths[900], device, name))


def decoder_frames_per_second(path: Path, device: torch.device, name: str) -> float:
    """Return the rate of one decoder alone, at the encoder's size."""
    size = create_encoder(name, "random", device=str(device)).image_size
    with decode_ahead(records_of([path]), DecodeSettings(size), decoders=1) as videos:
        next(videos)  # it has started
        started = time.perf_counter()
        frames = sum(len(event.pts_seconds) for event in videos if isinstance(event, DecodedFrames))
        return frames / (time.perf_counter() - started)


def time_epochs(device: torch.device, videos: int, home: Path, timings: Timings) -> None:
    """Time epochs of the paper's model on the device and on the CPU, extrapolated to 7,000."""
    cache = write_cache(home / "features", videos)
    table = cache.load()
    examples = Examples.join(table, records(table.video_ids, videos - 1))
    whole = EPOCH_FRAMES / int(table.offsets[-2])
    config = resolve_options(TrainConfig(manifest=home, cache=home, max_epochs=1, threads=1))
    for label, where, backend in backends(device):
        with using_backend(backend):
            fit(examples, config, device=where)  # what starts once, starts now
            started = time.perf_counter()
            fit(examples, config, device=where)
        timings.add(**{f"epoch_seconds_{label}": (time.perf_counter() - started) * whole})


def backends(device: torch.device) -> Iterator[tuple[str, torch.device, Any]]:
    from memfeat.models.native import kernel  # noqa: PLC0415

    yield "gru_on_device", device, "library"
    yield "cpu_kernel", CPU, "native" if kernel() else "plain"


@click.command()
@click.option("--device", default="cuda:0", show_default=True)
@click.option("--encoder", default="ViT-L-14-336-quickgelu", show_default=True)
@click.option("--batch", default=32, show_default=True)
@click.option("--seconds", default=10.0, show_default=True, help="Of each timing, about.")
@click.option("--videos", default=400, show_default=True, help="Of an epoch's timing.")
@click.option("--output", default=Path("runs/bench-gpu.json"), show_default=True,
              type=click.Path(dir_okay=False, path_type=Path))  # fmt: skip
def main(device: str, encoder: str, batch: int, seconds: float, videos: int, output: Path) -> None:
    """Time both stages on a GPU, with random weights, generated clips and made-up features."""
    where, timings = resolve_device(device), Timings()
    facts = machine() | {"device": device_names([where])[0]}
    with tempfile.TemporaryDirectory(prefix="bench-gpu-") as name:
        home = Path(name)
        time_encoder(encoder, where, batch, seconds / 4, timings)
        time_extraction(encoder, where, batch, seconds, home, timings)
        time_epochs(where, videos, home, timings)
    rows = {key: (key.replace("_", " "), 6 if "error" in key else 2) for key in timings.rounds}
    timings.show(
        rows,
        f"{encoder} with random weights, batch {batch}, on {facts['device']}",
        f"{facts['cpu']}, {facts['cores']} cores; torch {facts['torch']}, {facts['date']}",
    )
    medians = {key: timings.median(key) for key in timings.rounds}
    write_json(output, medians | {"encoder": f"{encoder}, random weights", "machine": facts})
    click.echo(f"Wrote {output}")


if __name__ == "__main__":
    main()
