"""Decoding videos to frames in worker processes, ahead of the encoder."""

from memfeat.decoding.ahead import (
    DecodedFrames,
    DecodedVideo,
    DecodedVideos,
    decode_ahead,
    start_decoders,
)
from memfeat.decoding.sampling import CoverCounter, Sampling
from memfeat.decoding.worker import DecodeResult, DecodeSettings

__all__ = [
    "CoverCounter",
    "DecodeResult",
    "DecodeSettings",
    "DecodedFrames",
    "DecodedVideo",
    "DecodedVideos",
    "Sampling",
    "decode_ahead",
    "start_decoders",
]
