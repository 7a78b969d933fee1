"""Encoding the texts of videos: a row a caption, or a window of a longer text."""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import count

import numpy as np
import torch

from memfeat.cache import CacheSpec, EncodedVideo, VideoEntry, shard_target, write_shard
from memfeat.cache.spec import NO_TEXT
from memfeat.config import ExtractConfig
from memfeat.encoders import TextEncoder, create_text_encoder
from memfeat.errors import VideoError
from memfeat.extraction.encoding import OnVideo, VideoOutcome
from memfeat.extraction.pipeline import OnRates, ShardRecords, numbered
from memfeat.extraction.texts import Cue, Part, Texts

LONGEST_WORD = 40  # characters; writing without spaces is cut there


def windows(part: Part, encoder: TextEncoder, max_seconds: float | None = None) -> list[Cue]:
    """Cut a text into windows of as many words as the encoder takes at once.

    Each window begins in the middle of the one before, at the time of its first word. Cues that
    begin at `max_seconds` or later are left out.
    """
    count_tokens = lru_cache(maxsize=None)(encoder.count_tokens)
    words = [
        Cue(word, cue.seconds)
        for cue in part
        if max_seconds is None or cue.seconds is None or cue.seconds < max_seconds
        for word in re.findall(rf"\S{{1,{LONGEST_WORD}}}", cue.text)
    ]
    found: list[Cue] = []
    start = stop = tokens = 0
    while stop < len(words):
        before = stop
        while stop < len(words) and (
            stop == start or tokens + count_tokens(words[stop].text) <= encoder.most_tokens
        ):
            tokens += count_tokens(words[stop].text)
            stop += 1
        if stop > before:  # or a long word has to wait for more room
            text = " ".join(word.text for word in words[start:stop])
            found.append(Cue(text, words[start].seconds))
        start += max(1, (stop - start) // 2)
        tokens = sum(count_tokens(word.text) for word in words[start:stop])
    return found


def encode_text(
    video_id: str, parts: Sequence[Part], encoder: TextEncoder, spec: CacheSpec
) -> EncodedVideo:
    """Encode a video's texts exactly as a cache of this spec would hold them.

    The rows' times are those of the texts where they have some, or else 0, 1, 2 and so on. A video
    without any text has failed, for the reason `no_text`.

    Raises:
        EncoderError: too little memory, or a text whose feature has no direction.
    """
    cut = [cue for part in parts for cue in windows(part, encoder, spec.max_seconds)]
    if not cut:
        empty = np.empty((0, spec.width), np.float16)
        return EncodedVideo(video_id, empty, np.empty(0), "failed", NO_TEXT)
    content = "\0".join(cue.text for part in parts for cue in part).encode()
    vectors = encoder.encode([cue.text for cue in cut], spec.batch_size or 1)
    numbers = count()
    return EncodedVideo(
        video_id=video_id,
        embeddings=vectors.numpy().astype(np.float16),
        pts_seconds=np.array(
            [next(numbers) if cue.seconds is None else cue.seconds for cue in cut], np.float64
        ),
        source_bytes=len(content),
        source_sha256=hashlib.sha256(content).hexdigest(),
    )


def build_text_encoder(config: ExtractConfig, device: torch.device) -> TextEncoder:
    """Build the text encoder that `config` names.

    Raises:
        UnknownNameError, EncoderError: see `memfeat.encoders.create_text_encoder`.
    """
    return create_text_encoder(
        config.encoder,
        config.weights,
        activation=config.activation,
        precision=config.precision,
        device=str(device),
    )


def build_text_spec(encoder: TextEncoder, config: ExtractConfig, texts: Texts) -> CacheSpec:
    """Return what a cache of the encoder's embeddings of these texts records.

    Raises:
        ConfigError: what `encoder.spec` refuses.
    """
    return encoder.spec(
        batch_size=config.batch_size, source=texts.label, max_seconds=config.max_seconds
    )


def make_text_shards(
    shards: Sequence[ShardRecords],
    encoder: TextEncoder,
    config: ExtractConfig,
    texts: Texts,
    *,
    earlier: Mapping[str, VideoEntry],
    on_video: OnVideo,
    on_rates: OnRates,  # noqa: ARG001 (nothing is decoded, so there is nothing to compare)
) -> None:
    """Make shards of texts, one after another.

    Args:
        shards: the videos of each.
        encoder: which one.
        config: settings of stage 1.
        texts: where the videos have theirs.
        earlier: what the cache says of those videos that are tried again, by id.
        on_video: called with each video as it is encoded.
        on_rates: not called.

    Raises:
        CacheError: a shard cannot be written.
        EncoderError: the encoder fails.
        RemoteError: a shard cannot be put in place.
    """
    spec = build_text_spec(encoder, config, texts)
    with shard_target(config.cache) as target:
        for records in shards:
            videos = list(_encoded(records, encoder, spec, texts, on_video))
            if new := list(numbered(videos, earlier)):
                target.put(write_shard(target.folder, spec, new))


def _encoded(
    records: ShardRecords,
    encoder: TextEncoder,
    spec: CacheSpec,
    texts: Texts,
    on_video: OnVideo,
) -> Iterator[EncodedVideo]:
    for record in records:
        try:
            parts = texts.parts(record.video_id, record)
            video, message = encode_text(record.video_id, parts, encoder, spec), ""
            if video.reason == NO_TEXT:
                message = f"it has no text in {texts.label}"
        except VideoError as error:
            empty = np.empty((0, spec.width), np.float16)
            video = EncodedVideo(record.video_id, empty, np.empty(0), "failed", error.reason)
            message = str(error)
        rows = len(video.embeddings)
        on_video(VideoOutcome(record.video_id, video.status, video.reason, message, rows))
        yield video
