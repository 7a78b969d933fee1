"""Stage 1: encoding a manifest's videos into shards, resuming where an earlier run stopped."""

import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from memfeat.cache import Cache, CacheSpec, same_sources
from memfeat.config import EVERY_REASON, ExtractConfig
from memfeat.decoding import Sampling, start_decoders
from memfeat.errors import CacheError, ConfigError, EncoderError, MemfeatError, RemoteError
from memfeat.extraction.encoding import OnVideo, VideoOutcome
from memfeat.extraction.pending import in_shards, part_of, settled
from memfeat.extraction.pipeline import (
    OnRates,
    build_encoder,
    build_spec,
    decoders_beside,
    make_shards,
)
from memfeat.extraction.rates import Rates
from memfeat.extraction.text_shards import build_text_encoder, build_text_spec, make_text_shards
from memfeat.extraction.texts import Texts
from memfeat.extraction.workers import Placement, extract_in_pool, placement
from memfeat.manifest import Manifest, VideoRecord
from memfeat.storage import (
    Location,
    Url,
    remove,
    remove_stale_parts,
    shards_at,
    write,
    write_atomically,
)


@dataclass(frozen=True)
class ExtractionSummary:
    """The result of a call of `extract`.

    Attributes:
        spec: what made the cache.
        devices: where the encoders ran, in words.
        wanted: videos asked for.
        already_done: of these, found in the cache before.
        outcomes: of the others, in the order they were finished.
        earlier_failures: already done, but failed then: video id to reason.
        set_aside: shards that could not be read, under their new names; their videos were done
            again.
        same: of the videos asked for, groups that are the same file, byte for byte.
        frames_kept: of the decoded frames of these outcomes, those that a sampler kept; none of a
            video that failed.
        rates: of each stage, with the bottleneck.
        seconds: wall time of decoding and encoding.
    """

    spec: CacheSpec
    devices: tuple[str, ...]
    wanted: int
    already_done: int
    outcomes: tuple[VideoOutcome, ...]
    earlier_failures: dict[str, str]
    set_aside: tuple[Location, ...]
    same: tuple[tuple[str, ...], ...]
    frames_kept: int
    rates: Rates
    seconds: float

    @property
    def failures(self) -> dict[str, str]:
        """Every failed video asked for, now or earlier: video id to reason."""
        now = {done.video_id: done.reason for done in self.outcomes if done.status == "failed"}
        return self.earlier_failures | now

    def as_dict(self) -> dict[str, Any]:
        """Return the summary ready for JSON."""
        statuses = Counter(outcome.status for outcome in self.outcomes)
        frames = sum(outcome.num_frames for outcome in self.outcomes)
        return {
            "wanted": self.wanted,
            "already_done": self.already_done,
            "ok": statuses["ok"],
            "partial": statuses["partial"],
            "failed": statuses["failed"],
            "failed_earlier": len(self.earlier_failures),
            "failures": self.failures,
            "reasons": dict(sorted(Counter(self.failures.values()).items())),
            "set_aside": [str(path) for path in self.set_aside],
            "same_content": [list(ids) for ids in self.same],
            "frames": frames,
            "frames_kept": self.frames_kept,
            "seconds": round(self.seconds, 3),
            "frames_per_second": round(frames / self.seconds, 2) if self.seconds else None,
            "rates": self.rates.as_dict(),
            "devices": list(self.devices),
            "spec": self.spec.model_dump(mode="json"),
        }


def extract(
    manifest: Manifest,
    config: ExtractConfig,
    *,
    on_start: Callable[[int, str], None] | None = None,
    on_video: OnVideo | None = None,
    on_rates: OnRates | None = None,
) -> ExtractionSummary:
    """Encode every video that the cache does not hold yet: its frames, a sampler's, or its texts.

    A shard is put in place whole, so stopping this at any moment, by any means, costs at most the
    shards being worked on, and the next call goes on from there to the same bytes.

    Args:
        manifest: which videos, in order.
        config: encoder, cache folder, batch and shard sizes, devices.
        on_start: called once with the number of videos that need no work here, and with the
            encoder, its precision and its devices in words.
        on_video: called as each video is decoded.
        on_rates: called now and then with the rates so far.

    Raises:
        UnknownNameError: no such encoder or sampler.
        ConfigError: tokens or a sampler that the encoder cannot be used with; texts that are not
            there; no such device, or no Ray.
        EncoderError: its weights cannot be loaded.
        CacheError: the folder holds embeddings made differently, or cannot be written to.
        DecoderError: processes to decode with cannot be had.
        VideoError: a video is partial, and the settings say to fail then.
        RemoteError: a remote cache cannot be read or written, or no remote video be had.
    """
    Sampling.parse(config.sampler)  # a mistake here should not cost a model's loading
    if config.text:  # one device is enough
        one = {"device": config.device.partition(",")[0], "engine": "local"}
        config = config.model_copy(update=one)
    with placement(config) as where:
        return _extract(
            manifest, where, on_start or _ignore, on_video or _ignore, on_rates or _ignore
        )


def _ignore(*_: object) -> None:
    """Ignore the event (default callback)."""


def _extract(
    manifest: Manifest,
    where: Placement,
    on_start: Callable[[int, str], None],
    on_video: OnVideo,
    on_rates: OnRates,
) -> ExtractionSummary:
    config = where.config
    records = part_of(manifest, config)
    texts = None
    if config.text:
        texts = Texts.open(config.text, [record.video_id for record in manifest.records])
    elif not where.in_process:
        _require_shared(config, records)
    elif not shards_at(config.cache):  # there will be work
        start_decoders(decoders_beside(where.device, config, 1))
    try:
        work = _text_work(where, texts) if texts else _frame_work(where)
    except EncoderError as error:
        raise EncoderError(f"{error}{_made_by_another(config)}") from error
    spec = work.spec
    if isinstance(config.cache, Path):
        remove_stale_parts(config.cache)
    cache, set_aside = Cache.open_whole(config.cache)
    done = _done(cache, config, spec) if cache else {}
    pending = [record for record in records if record.video_id not in done]
    _require_writable(config.cache, pending)
    shards = in_shards(pending, config.videos_per_shard)
    held = cache.entries if cache else {}
    earlier = {each.video_id: held[each.video_id] for each in pending if each.video_id in held}
    on_start(
        len(manifest.records[: config.limit]) - len(pending),
        f"{work.encoder} on {', '.join(where.devices)}",
    )
    outcomes: list[VideoOutcome] = []
    rates = Rates()
    started = time.perf_counter()

    def finished(outcome: VideoOutcome) -> None:
        outcomes.append(outcome)
        on_video(outcome)

    def measured(latest: Rates) -> None:
        nonlocal rates
        rates = latest
        on_rates(latest)

    if shards:
        work.make(shards, earlier=earlier, on_video=finished, on_rates=measured)
    seconds = time.perf_counter() - started
    if outcomes:
        cache = Cache.open(config.cache)
    return ExtractionSummary(
        spec,
        tuple(where.devices),
        wanted=len(records),
        already_done=len(records) - len(pending),
        outcomes=tuple(outcomes),
        earlier_failures={
            record.video_id: done[record.video_id]
            for record in records
            if done.get(record.video_id)
        },
        set_aside=set_aside,
        same=_same(cache, {record.video_id for record in records}) if cache else (),
        frames_kept=_frames_kept(cache, outcomes) if cache else 0,
        rates=rates,
        seconds=seconds,
    )


class _Work(NamedTuple):
    """What makes shards.

    Attributes:
        spec: of the cache.
        encoder: its name and precision.
        make: makes those that it is given.
    """

    spec: CacheSpec
    encoder: str
    make: Callable[..., None]


def _frame_work(where: Placement) -> _Work:
    config = where.config
    encoder = build_encoder(config, where.device)
    precision = f"{encoder.precision}, compiled," if encoder.compiled else encoder.precision
    make = partial(extract_in_pool, where=where)
    if where.in_process:
        make = partial(make_shards, encoder=encoder, config=config, on_shard=_ignore)
    return _Work(build_spec(encoder, config), f"{encoder.name} in {precision}", make)


def _text_work(where: Placement, texts: Texts) -> _Work:
    config = where.config
    encoder = build_text_encoder(config, where.device)
    make = partial(make_text_shards, encoder=encoder, config=config, texts=texts)
    spec = build_text_spec(encoder, config, texts)
    return _Work(spec, f"{encoder.name} in {encoder.precision}", make)


def _made_by_another(config: ExtractConfig) -> str:
    """Say so, to end an error, if another encoder than the one asked for made the cache."""
    try:
        made = Cache.open(config.cache).spec
    except (MemfeatError, OSError):
        return ""
    same = made.encoder == config.encoder
    return (
        "" if same else f". {config.cache} was made with {made.flags}: give these to go on with it"
    )


def _require_writable(folder: Location, pending: Sequence[VideoRecord]) -> None:
    """Check that the cache can be written to, before any work is done; a whole one need not be."""
    if not pending:
        return
    if isinstance(folder, Url):
        probe = Url(f"{folder}/probe")
        write(probe, b"")
        with suppress(RemoteError):  # another process may have removed it
            remove(probe)
        return
    try:
        write_atomically(folder / "probe", b"")
        (folder / "probe").unlink(missing_ok=True)
    except OSError as error:
        raise CacheError(
            f"cannot write into {folder}: {error.strerror}; give another --cache, or mend that"
        ) from error


def _same(cache: Cache, wanted: Collection[str]) -> tuple[tuple[str, ...], ...]:
    groups = same_sources(cache)
    return tuple(group for group in groups if len(set(group).intersection(wanted)) > 1)


def _require_shared(config: ExtractConfig, records: Sequence[VideoRecord]) -> None:
    """Check that worker processes can reach all files."""
    for place in (config.cache, *(record.path for record in records)):
        if isinstance(place, Url) and place.protocol == "memory":
            raise ConfigError(
                f"{place} is in this process's memory, and others are to do the work; give one "
                "--device and --engine local, or another storage"
            )


def _frames_kept(cache: Cache, outcomes: Sequence[VideoOutcome]) -> int:
    encoded = [outcome for outcome in outcomes if outcome.status != "failed"]
    if cache.spec.sampling == "every":  # a row may stand for a whole clip
        return sum(outcome.num_frames for outcome in encoded)
    return sum(cache.entries[outcome.video_id].num_frames for outcome in encoded)


def _done(cache: Cache, config: ExtractConfig, spec: CacheSpec) -> dict[str, str]:
    """Map the videos that need no work to why they failed, empty for those that did not."""
    cache.spec.require(
        spec,
        f"{config.cache} holds embeddings made differently; give another --cache, or what made "
        f"them ({cache.spec.flags})",
    )
    named = set(config.retry_failed) - {EVERY_REASON}
    # Where nothing failed there is nothing to try again: the same command may run once more.
    if cache.reasons and not named <= cache.reasons:
        raise ConfigError(
            f"no video of {config.cache} failed for {min(named - cache.reasons)!r}; there are: "
            f"{', '.join(sorted(cache.reasons))}"
        )
    return settled(cache, config)
