"""What an extraction will take, estimated before any of it is done: frames, bytes, hours, cost."""

import json
import math
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

from memfeat.config import PlanConfig
from memfeat.decoding import DecodedVideo, DecodeSettings, decode_ahead
from memfeat.encoders import VectorShape, vector_shape
from memfeat.errors import ConfigError
from memfeat.manifest import Manifest, read_manifest

# Bytes as `memfeat.cache.shard` lays them out; a test compares with shards that it wrote.
ROW_BYTES = 8 + 4  # pts_seconds, covers
VIDEO_BYTES = (
    8 + 8 + 8 + 8 + 64 + 2 + 1
)  # offset, size, expected and frame size, hash, `ok`, no reason
SHARD_BYTES = 6_600  # HDF5's headers, the spec and the checksum
RATE_FIELDS = ("frames_per_second", "frames_per_second_360p")  # of extraction, and a benchmark
Figures = dict[str, Any]  # by name, ready for JSON


def make_plan(config: PlanConfig) -> Figures:
    """Estimate what extraction takes, without decoding a video or loading weights.

    Raises:
        ConfigError, UnknownNameError, EncoderError, ManifestError: of what cannot be planned with.
    """
    shape = vector_shape(config.encoder, config.tokens)
    for problem in _problems(config, shape):
        raise ConfigError(problem)
    rate, source = config.rate, "given"
    if config.rate_from is not None:
        rate, source = _measured(config.rate_from, config)
    id_bytes, lengths = 16, [max(1.0, (config.seconds or 0) * config.fps)]
    found: Figures = {"videos": config.videos}
    if config.manifest is not None:
        manifest = read_manifest(config.manifest, config.root)
        id_bytes = max(len(record.video_id.encode()) for record in manifest.records)
        lengths, found = sample_lengths(manifest, config.headers)
    frames = found["videos"] * fmean(lengths)
    size = cache_size(found["videos"], id_bytes, lengths, shape, config)
    plan = {
        "encoder": config.encoder,
        "videos": found["videos"],
        "frames": round(frames),
        "frames_a_video": round(fmean(lengths), 3),
    } | (found | size)
    if rate is None:
        return plan
    # GPUs and cores work side by side, and the slower of both sets the time.
    encoding = frames * config.keep / (rate * config.gpus)
    cores_rate = (config.cores or 0) * (config.decode_rate or 0)
    decoding = frames / cores_rate if cores_rate else 0.0
    seconds, needed, read = max(encoding, decoding), frames / encoding, found.get("source_bytes")
    hours = seconds / 3600
    return plan | {
        "rate": rate,
        "rate_source": source,
        "gpus": config.gpus,
        "hours": round(hours, 6),
        "gpu_hours": round(hours * config.gpus, 6),
        "cost": None if config.price is None else round(hours * config.gpus * config.price, 2),
        "bottleneck": ("decode" if decoding > encoding else "encode") if decoding else None,
        "decode_needed": round(needed, 2),
        "cores_needed": math.ceil(needed / config.decode_rate) if config.decode_rate else None,
        "read_bytes_per_second": None if read is None else round(read / seconds),
        "write_bytes_per_second": round(plan["cache_bytes"] / seconds),
    }


def sample_lengths(manifest: Manifest, headers: int) -> tuple[list[float], Figures]:
    """Look for every video's file, and read the headers of some, the same random ones each time.

    Returns frames of each video read, 0 if it cannot be decoded; and figures. `frames_error_95` is
    half the 95 % interval of the total as a share of it: that of the mean of a random sample
    without replacement, by the normal law; None if not two lengths are known.
    """
    paths = {r.video_id: r.path for r in manifest.records if isinstance(r.path, Path)}
    sizes = {name: path.stat().st_size for name, path in paths.items() if path.is_file()}
    remote = len(manifest.records) - len(paths)
    drawn = random.Random(0).sample(list(sizes), min(headers, len(sizes)))  # noqa: S311
    lengths, unreadable = list[float](), dict[str, str]()
    records = [manifest.by_id[name] for name in drawn]
    with decode_ahead(records, DecodeSettings(1, header_only=True), decoders=1) as decoded:
        for event in decoded:
            if isinstance(event, DecodedVideo):
                frames = event.result.frames_by_header
                if event.result.status == "failed":  # it will fail, and cost nothing
                    unreadable[event.record.video_id], frames = event.result.reason, 0.0
                lengths += [] if frames is None else [frames]
    if not any(lengths):
        why = ", ".join(sorted(set(unreadable.values()))) or "no header has it"
        raise ConfigError(
            f"{manifest.path}: of {len(manifest.records)} videos, {len(sizes)} are there and "
            f"{remote} are remote, and none of the {len(drawn)} looked at tells its length "
            f"({why}); give --videos and --seconds, or another --root"
        )
    videos, count = len(sizes) + remote, len(lengths)
    spread = 0.0 if count == videos else None
    if 1 < count < videos:
        spread = 1.96 * stdev(lengths) * math.sqrt((1 - count / videos) / count) / fmean(lengths)
    return lengths, {
        "videos": videos,
        "frames_error_95": None if spread is None else round(spread, 5),
        "source_bytes": None if remote else sum(sizes.values()),
        "missing": [name for name in paths if name not in sizes],
        "remote": remote,
        "headers": {
            "looked_at": len(drawn),
            "silent": len(drawn) - count,
            "unreadable": unreadable,
            "shortest": min(lengths),
            "median": median(lengths),
            "longest": max(lengths),
        },
    }


def cache_size(
    videos: int, id_bytes: int, lengths: Sequence[float], shape: VectorShape, config: PlanConfig
) -> Figures:
    """Predict a cache's size to a hundredth; `lengths` are the frames of some of its videos."""
    kept = [n * config.keep if shape.clip_frames == 1 else n // shape.clip_frames for n in lengths]
    rows = videos * fmean(
        max(1, n) if length else 0 for n, length in zip(kept, lengths, strict=True)
    )
    row_bytes = 2 * shape.width + ROW_BYTES
    shards = math.ceil(videos / config.videos_per_shard)
    total = round(rows * row_bytes) + videos * (VIDEO_BYTES + id_bytes) + shards * SHARD_BYTES
    return {
        "rows": round(rows),
        "numbers_a_row": shape.width,
        "row_bytes": row_bytes,
        "cache_bytes": total,
        "shards": shards,
        "shard_bytes": round(total / shards),
    }


def _problems(config: PlanConfig, shape: VectorShape) -> Iterator[str]:
    """Yield what is wrong with settings that are sound each by itself."""
    given = " and ".join(f"--{n}" for n in ("videos", "seconds") if getattr(config, n) is not None)
    if config.manifest is not None and given:
        yield f"--manifest tells which videos there are, so {given} cannot be; give either"
    if config.manifest is None and given != "--videos and --seconds":
        what = "give --manifest FILE, or --videos N and --seconds S"
        yield f"it is not known what to plan for: got {given or 'neither'}; {what}"
    if config.cores is not None and config.decode_rate is None:
        yield f"--cores {config.cores} tells nothing without --decode-rate; give what one decodes"
    if config.rate_field is not None and config.rate_from is None:
        yield f"--rate-field {config.rate_field} is a number of no file; give --rate-from too"
    if config.rate is not None and config.rate_from is not None:
        yield f"--rate {config.rate:g} and --rate-from {config.rate_from} are both given; give one"
    if shape.clip_frames > 1 and config.keep < 1:
        clips = f"{config.encoder} takes clips of {shape.clip_frames} consecutive frames"
        yield f"{clips}, so no sampler goes with it; leave --keep {config.keep:g} out"


def _measured(path: Path, config: PlanConfig) -> tuple[float, str]:
    """Take the rate from what `memfeat extract --json` or a benchmark printed."""
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read --rate-from {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"--rate-from {path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"--rate-from {path} is no JSON object; give what extract --json printed")
    names = (config.rate_field,) if config.rate_field else RATE_FIELDS
    name = next((each for each in names if each in content), " or ".join(names))
    value: Any = content.get(name)
    facts = content["spec"] if isinstance(content.get("spec"), dict) else content
    encoder = str(facts.get("encoder") or config.encoder).partition(",")[0]
    sampling = facts.get("sampling", "every")
    problem = ""
    if type(value) not in (int, float) or not 0 < value < math.inf:
        problem = f"has no rate: {name} is {value!r}, not frames/s"
    elif encoder != config.encoder:
        problem = f"was measured with encoder {encoder}, not {config.encoder}"
    elif sampling != "every":
        problem = f"was measured with --sampler {sampling}, not on every frame, as --keep needs it"
    if problem:
        how = f"memfeat extract --encoder {config.encoder} --limit 8 --json into a new cache"
        raise ConfigError(f"--rate-from {path} {problem}; measure with {how}")
    return value, f"measured: {name} of {path}"
