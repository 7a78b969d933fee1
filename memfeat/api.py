"""memfeat from Python, as `import memfeat` gives it: what the commands do, as functions.

Strings are paths or URLs wherever a file or folder is meant. Settings are keyword arguments with
the names that they have in pipeline files. Every error is a `memfeat.MemfeatError`, whose text says
what was wrong, the value found, what is allowed and what to do next. It names settings by their
flags: what it calls `--batch-size` is the argument `batch_size`.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, overload

from memfeat.ablation import train_seeds
from memfeat.cache import VideoFeatures
from memfeat.config import ExtractConfig, TrainConfig, read_settings
from memfeat.devices import resolve_device
from memfeat.errors import VideoError
from memfeat.extraction import ExtractionSummary, encode_videos, usual_decoders
from memfeat.extraction import extract as fill_cache
from memfeat.extraction.pipeline import build_encoder, build_spec
from memfeat.manifest import Split, read_manifest
from memfeat.metrics import Metrics
from memfeat.prediction import Predictor, RatingPredictor, load_predictor
from memfeat.prediction.scorer import AnyRun
from memfeat.runs import Run
from memfeat.storage import AnyLocation, is_one, location_of
from memfeat.training import evaluate_run, read_features


def load(
    run: AnyRun | Sequence[AnyRun],
    *,
    device: str = "auto",
    weights: str | Path | Sequence[str | Path] = (),
) -> Predictor | RatingPredictor:
    """Load a trained run, to score videos with it.

    Examples:
        >>> import memfeat
        >>> predictor = memfeat.load("runs/mine")
        >>> prediction = predictor.predict("clip.mp4")
        >>> 0 < prediction.score < 1
        True
        >>> len(prediction.effects) == len(prediction.pts_seconds) == prediction.num_frames
        True

    Args:
        run: folder of the run, its URL, or that of a packed file; of several, scores are averaged.
            Or the name of a ready scorer, `resmem` or `vitmem`, which rates each frame as an image.
        device: `auto`, `cpu` or `cuda:N`.
        weights: the encoder's checkpoint, if the run was made with a file; of several encoders, in
            the order of the run's caches.

    Returns:
        A predictor. A run's encoder, which takes most of the time, is loaded with the first video.

    Raises:
        RunError: the run is incomplete or damaged.
        RemoteError: it cannot be fetched.
        ConfigError: the device is not here.
    """
    return load_predictor(run, device=device, weights=weights)


@overload
def embed(video: AnyLocation, encoder: str = ..., **settings: Any) -> VideoFeatures: ...


@overload
def embed(
    video: Iterable[AnyLocation], encoder: str = ..., **settings: Any
) -> list[VideoFeatures]: ...


def embed(
    video: AnyLocation | Iterable[AnyLocation],
    encoder: str = ExtractConfig.model_fields["encoder"].default,
    **settings: Any,
) -> VideoFeatures | list[VideoFeatures]:
    """Encode the frames of a video, exactly as a cache would hold them.

    Examples:
        >>> import memfeat
        >>> vectors, pts_seconds = memfeat.embed(
        ...     "clip.mp4", encoder="efficientnet-lite0", weights="random"
        ... )
        >>> vectors.shape == (len(pts_seconds), 1280)
        True

    Args:
        video: its path or URL; or several, which are decoded ahead, and the encoder loaded once.
        encoder: `memfeat list encoders` names them.
        settings: others of `memfeat extract`, such as `weights`, `tokens`, `sampler`, `device`,
            `batch_size`, `max_seconds` and `allow_images`; see `memfeat.config.ExtractConfig`.

    Returns:
        The vectors, float16 (time, width), each of unit L2 norm, and when each frame appears,
        float64 (time,) in seconds; of several videos a list of such pairs.

    Raises:
        UnknownNameError: no such encoder, weights or sampler.
        ConfigError: a setting that is unknown or not allowed, or what names no file.
        EncoderError: the weights cannot be loaded, or the device not used.
        VideoError: a video cannot be used at all. `memfeat.extract` goes on with the others.
        RemoteError: a remote video cannot be had.
    """
    locations = [location_of(video)] if is_one(video) else [location_of(each) for each in video]
    # The two that are only for caches have to be there, and are not read.
    config = read_settings(
        ExtractConfig,
        "extract",
        None,
        {"manifest": "-", "cache": "-", "encoder": encoder, **settings},
    )
    built = build_encoder(config, resolve_device(config.device))
    decoders = config.decoders or min(len(locations), usual_decoders(built.device))
    found = []
    for each in encode_videos(
        locations,
        built,
        build_spec(built, config),
        decoders=max(1, decoders),
        allow_images=config.allow_images,
    ):
        if isinstance(each, VideoError):
            raise each
        found.append(VideoFeatures(each.embeddings, each.pts_seconds))
    return found[0] if is_one(video) else found


def extract(pipeline: str | Path | None = None, **settings: Any) -> ExtractionSummary:
    """Encode a manifest's videos into a cache, as `memfeat extract` does.

    What the cache holds already is not done again.

    Examples:
        >>> import memfeat
        >>> summary = memfeat.extract(
        ...     manifest="mine.csv",
        ...     cache="cache/mine/efficientnet-lite0",
        ...     encoder="efficientnet-lite0",
        ... )
        >>> summary.wanted == summary.already_done + len(summary.outcomes)
        True

    Args:
        pipeline: a TOML file with an [extract] table, which the settings override.
        settings: see `memfeat.config.ExtractConfig`; `manifest` and `cache` are needed.

    Returns:
        What became of each video, and how fast it went.

    Raises:
        ConfigError: a setting that is missing, unknown or not allowed.
        MemfeatError: as for `memfeat.extraction.extract`.
    """
    config = read_settings(ExtractConfig, "extract", pipeline, settings)
    return fill_cache(read_manifest(config.manifest, config.root), config)


def train(pipeline: str | Path | None = None, *, workers: int = 0, **settings: Any) -> Run:
    """Train a system from a cache, as `memfeat train` does.

    Seeds that are finished already are kept.

    Examples:
        >>> import memfeat
        >>> run = memfeat.train(
        ...     manifest="mine.csv",
        ...     cache="cache/mine/efficientnet-lite0",
        ...     run="runs/from-python",
        ...     aggregator="avg",
        ...     head="linear",
        ...     max_epochs=5,
        ... )
        >>> sorted(run.metrics)
        ['dev', 'test', 'train']

    Args:
        pipeline: a TOML file with a [train] table, which the settings override.
        workers: processes that train several seeds at once; 0 for one per CPU core.
        settings: see `memfeat.config.TrainConfig`; `manifest` and `cache` are needed.

    Returns:
        The run: its folder, its metrics by split, and its predictions.

    Raises:
        ConfigError: a setting that is missing, unknown or not allowed.
        MemfeatError: as for `memfeat.training.train`.
    """
    return train_seeds(read_settings(TrainConfig, "train", pipeline, settings), workers)


def evaluate(
    run: AnyRun,
    *,
    manifest: AnyLocation | None = None,
    cache: AnyLocation | Sequence[AnyLocation] = (),
    split: Split | None = None,
) -> dict[str, Metrics]:
    """Compare a run's scores with the truth, as `memfeat evaluate` does.

    Examples:
        >>> import memfeat
        >>> metrics = memfeat.evaluate("runs/mine", split="test")
        >>> metrics["test"].mse >= 0
        True

    Args:
        run: the run, or its folder.
        manifest: other videos than the run's own.
        cache: their features, for a run of several streams one each.
        split: only this one.

    Returns:
        By split: PLCC, SROCC, MSE and more; of several seeds the mean over them.

    Raises:
        RunError: the run is incomplete or damaged, or does not fit the cache.
        MemfeatError: manifest or cache cannot be read.
    """
    found = run if isinstance(run, Run) else Run.load(run)
    videos = read_manifest(location_of(manifest) if manifest else found.config.manifest)
    several = [cache] if is_one(cache) else list(cache)
    folders = [location_of(each) for each in several] or found.config.cache
    features = read_features(videos, folders, split=split, missing=found.config.missing)
    return evaluate_run(found, features.tables, features.records)
