"""How long an extraction takes at a rate, what that costs, and what it waits for."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memfeat.config import PlanConfig
from memfeat.errors import ConfigError
from memfeat.planning.footage import Footage
from memfeat.planning.size import Size

RATE_FIELDS = ("frames_per_second", "frames_per_second_360p")


@dataclass(frozen=True)
class Rate:
    """Frames that one GPU encodes in a second, and who says so, in words."""

    frames_per_second: float
    source: str


@dataclass(frozen=True)
class Pace:
    """Time and cost.

    Attributes:
        rate: of one GPU.
        gpus: that work side by side.
        seconds: on the clock; starting, failures and waiting for machines are not in it.
        cost: of all GPUs for that time; None without a price.
        decode_needed: frames to decode in a second so that no GPU waits.
        cores_needed: that do it; None if one core's rate is not known.
        bottleneck: `encode` or `decode`; `encode` if it is not known how fast decoding is.
        knows_decoding: whether that is known.
        read_bytes_per_second: of the videos' files, for all GPUs; None if their size is not known.
        write_bytes_per_second: of the cache.
    """

    rate: Rate
    gpus: int
    seconds: float
    cost: float | None
    decode_needed: float
    cores_needed: int | None
    bottleneck: str
    knows_decoding: bool
    read_bytes_per_second: float | None
    write_bytes_per_second: float

    @property
    def gpu_hours(self) -> float:
        """Of all GPUs together."""
        return self.seconds * self.gpus / 3600

    def as_dict(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        read = self.read_bytes_per_second
        return {
            "rate": self.rate.frames_per_second,
            "rate_source": self.rate.source,
            "gpus": self.gpus,
            "hours": round(self.seconds / 3600, 6),
            "gpu_hours": round(self.gpu_hours, 6),
            "cost": None if self.cost is None else round(self.cost, 2),
            "bottleneck": self.bottleneck if self.knows_decoding else None,
            "decode_needed": round(self.decode_needed, 2),
            "cores_needed": self.cores_needed,
            "read_bytes_per_second": None if read is None else round(read),
            "write_bytes_per_second": round(self.write_bytes_per_second),
        }


def pace_of(footage: Footage, size: Size, rate: Rate, config: PlanConfig) -> Pace:
    """Work out the time that GPUs and cores need side by side: that of the slower ones."""
    encoding = footage.frames * config.keep / (rate.frames_per_second * config.gpus)
    decode_needed = footage.frames / encoding
    decoding = 0.0
    if config.cores and config.decode_rate:
        decoding = footage.frames / (config.cores * config.decode_rate)
    seconds = max(encoding, decoding)
    gpu_hours = seconds * config.gpus / 3600
    source = footage.source_bytes
    return Pace(
        rate=rate,
        gpus=config.gpus,
        seconds=seconds,
        cost=None if config.price is None else gpu_hours * config.price,
        decode_needed=decode_needed,
        cores_needed=math.ceil(decode_needed / config.decode_rate) if config.decode_rate else None,
        bottleneck="decode" if decoding > encoding else "encode",
        knows_decoding=bool(decoding),
        read_bytes_per_second=None if source is None else source / seconds,
        write_bytes_per_second=size.total_bytes / seconds,
    )


def rate_of(config: PlanConfig) -> Rate | None:
    """Return the rate that was given or measured; None if neither is there.

    Raises:
        ConfigError: both are, or the measurement cannot be used.
    """
    if config.rate_from is None:
        if config.rate_field is not None:
            raise ConfigError(
                f"--rate-field {config.rate_field} names a number of no file; give --rate-from too"
            )
        return None if config.rate is None else Rate(config.rate, "given")
    if config.rate is not None:
        raise ConfigError(
            f"--rate {config.rate:g} and --rate-from {config.rate_from} are both given; give one"
        )
    return _measured(config.rate_from, _read(config.rate_from), config)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read --rate-from {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"--rate-from {path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"--rate-from {path} is no JSON object; give what extract --json printed")
    return content


def _measured(path: Path, content: dict[str, Any], config: PlanConfig) -> Rate:
    """Take the rate from a measurement, unless it is one of something else."""
    names = (config.rate_field,) if config.rate_field else RATE_FIELDS
    name = next((name for name in names if name in content), None)
    value = content.get(name) if name else None
    is_rate = isinstance(value, int | float) and not isinstance(value, bool)
    if value is None or not is_rate or not 0 < value < math.inf:
        raise ConfigError(
            f"--rate-from {path} has no rate: {name or ' or '.join(names)} is {value!r}, not "
            "frames/s; measure it with memfeat extract --limit 8 --json into a new cache"
        )
    spec = content.get("spec")
    facts = spec if isinstance(spec, dict) else content
    encoder = str(facts.get("encoder") or "").partition(",")[0]
    if encoder and encoder != config.encoder:
        raise ConfigError(
            f"--rate-from {path} was measured with encoder {encoder}, not {config.encoder}; "
            f"measure that one, or plan with --encoder {encoder}"
        )
    sampling = facts.get("sampling", "every")
    if sampling != "every":
        raise ConfigError(
            f"--rate-from {path} was measured with --sampler {sampling}, which counts frames that "
            "it left out; measure every frame, and give --keep"
        )
    return Rate(float(value), f"measured: {name} of {path}")
