"""Building the encoders that runs were trained on; any other is refused."""

from collections.abc import Sequence
from pathlib import Path

from memfeat.cache import CacheSpec
from memfeat.cache.spec import TEXT
from memfeat.encoders import FrameEncoder, TextEncoder, create_encoder, create_text_encoder
from memfeat.errors import CacheError, RunError
from memfeat.runs import Run


def build_encoders(
    runs: Sequence[Run], specs: Sequence[CacheSpec], device: str, weights: Sequence[str | Path]
) -> tuple[FrameEncoder | TextEncoder, ...]:
    """Build the encoder that each of the runs' `specs` describes, in their order.

    `weights` are the checkpoint files of those encoders that came from one, in the order of the
    runs' caches.

    Raises:
        RunError: a file is missing or one too many, the features were made elsewhere, or another
            encoder comes out than the one that the run was trained on.
        EncoderError: an encoder's weights cannot be loaded.
    """
    wanted = encoders_of(runs, weights)
    found = ((spec, *wanted[spec]) for spec in specs)
    return tuple(_build_encoder(run, spec, device, file) for spec, run, file in found)


def encoders_of(
    runs: Sequence[Run], weights: Sequence[str | Path]
) -> dict[CacheSpec, tuple[Run, str | Path | None]]:
    """Return what made the runs' features, with the run that is named for it and the file given.

    Raises:
        RunError: a file is missing or one too many, or the features were made elsewhere.
    """
    wanted: dict[CacheSpec, Run] = {}
    for run in runs:
        wanted |= {spec: run for spec in run.specs if spec not in wanted}
    for spec, run in wanted.items():
        if spec.is_imported:
            raise RunError(
                f"{run.name} was trained on features that were made elsewhere "
                f"({spec.trained_on}), and memfeat cannot make them for another video; import that "
                "video's features, and score them with --cache"
            )
    from_file = [spec for spec in wanted if spec.file]
    # A single encoder may be given any weights: other ones are refused below, with both values.
    given = dict(zip(from_file or wanted, weights, strict=False))
    for spec in from_file:
        if spec not in given:
            raise RunError(
                f"{wanted[spec].name} was trained on {spec.encoder} with the checkpoint file "
                f"{spec.file!r}; give its path with --weights"
            )
    if len(weights) > len(given):
        names = " with ".join(run.name for run in runs)
        raise RunError(
            f"{len(weights)} checkpoint files are given, and {names} has {len(given)} "
            "encoders to load one; give --weights once for each"
        )
    return {spec: (run, given.get(spec)) for spec, run in wanted.items()}


def _build_encoder(
    run: Run, spec: CacheSpec, device: str, weights: str | Path | None
) -> FrameEncoder | TextEncoder:
    encoder: FrameEncoder | TextEncoder
    given = spec.weights if weights is None else str(weights)
    activation = spec.asked_activation
    precision, batch_size = spec.precision or "auto", spec.batch_size or 1
    if spec.is_text:
        encoder = create_text_encoder(
            spec.encoder, given, activation=activation, precision=precision, device=device
        )
        made = encoder.spec(
            batch_size=batch_size,
            source=spec.sampling.removeprefix(TEXT),
            max_seconds=spec.max_seconds,
        )
    else:
        encoder = create_encoder(
            spec.encoder,
            given,
            activation=activation,
            tokens=spec.tokens,
            layer=spec.layer,
            precision=precision,
            compiled=spec.compiled and device != "cpu",  # which would take longer than a few clips
            device=device,
        )
        made = encoder.spec(
            batch_size=batch_size,
            max_frames=spec.max_frames,
            max_seconds=spec.max_seconds,
            sampling=spec.sampling,
            resize=spec.resize,
            fps=spec.fps,
        )
    as_made = {"compiled": spec.compiled, "untagged_hd": spec.untagged_hd}
    built = made.model_copy(update=as_made)
    try:
        spec.require(built, f"{run.name} was trained on another encoder than this one")
    except CacheError as error:
        raise RunError(
            f"{error}. Use the weights and versions that extracted its features, or train on "
            "features of the encoder that is here"
        ) from error
    return encoder
