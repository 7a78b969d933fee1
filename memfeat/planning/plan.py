"""From settings to a plan: what there is, how large its cache gets, and how long it takes."""

from dataclasses import dataclass
from typing import Any

from memfeat.config import PlanConfig
from memfeat.encoders import vector_shape
from memfeat.errors import ConfigError
from memfeat.manifest import read_manifest
from memfeat.planning.footage import Footage, look_at
from memfeat.planning.pace import Pace, pace_of, rate_of
from memfeat.planning.size import Size, size_of


@dataclass(frozen=True)
class Plan:
    """What an extraction will take.

    Attributes:
        encoder: its name.
        footage: what is to be encoded.
        size: of the cache.
        pace: None if no rate is known.
    """

    encoder: str
    footage: Footage
    size: Size
    pace: Pace | None

    def as_dict(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        pace = self.pace.as_dict() if self.pace else {}
        return {"encoder": self.encoder, **self.footage.as_dict(), **self.size.as_dict(), **pace}


def make_plan(config: PlanConfig) -> Plan:
    """Plan an extraction: read a manifest and some headers, or take what is given, and reckon.

    No weights are loaded and nothing is decoded.

    Raises:
        ConfigError: settings that contradict each other or do not suffice, a rate that cannot be
            taken from its file, or tokens that the encoder cannot give.
        UnknownNameError: no such encoder.
        EncoderError: it does not turn a square image into one vector.
        ManifestError: the manifest has problems.
    """
    _require_consistent(config)
    rate = rate_of(config)
    shape = vector_shape(config.encoder, config.tokens)
    if shape.clip_frames > 1 and config.keep < 1:
        raise ConfigError(
            f"{config.encoder} takes clips of {shape.clip_frames} consecutive frames, so no "
            f"sampler goes with it; leave --keep {config.keep:g} out"
        )
    footage = _footage(config)
    size = size_of(footage, shape, config.keep, config.videos_per_shard)
    if not size.rows:
        raise ConfigError(
            f"{config.manifest}: none of the {len(footage.lengths)} videos looked at can be read "
            f"({', '.join(sorted(set(footage.unreadable.values())))}); memfeat manifest check "
            "tells more"
        )
    return Plan(
        config.encoder, footage, size, pace_of(footage, size, rate, config) if rate else None
    )


def _footage(config: PlanConfig) -> Footage:
    if config.manifest is not None:
        return look_at(read_manifest(config.manifest, config.root), config.headers)
    frames = max(1.0, (config.seconds or 0) * config.fps)
    return Footage(config.videos or 0, (frames,), is_given=True)


def _require_consistent(config: PlanConfig) -> None:
    given = [f"--{name}" for name in ("videos", "seconds") if getattr(config, name) is not None]
    if config.manifest is not None and given:
        raise ConfigError(
            f"--manifest tells which videos there are, so {' and '.join(given)} cannot be; give "
            "either the one or the other"
        )
    if config.manifest is None and len(given) < 2:
        raise ConfigError(
            f"it is not known what to plan for: got {given[0] if given else 'neither'}; give "
            "--manifest FILE, or --videos N and --seconds S"
        )
    if (config.cores is None) != (config.decode_rate is None) and config.decode_rate is None:
        raise ConfigError(
            f"--cores {config.cores} tells nothing without --decode-rate; give what one decodes"
        )
