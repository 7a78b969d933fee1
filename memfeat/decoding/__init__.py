"""Decoding videos to frames in worker processes, in order and ahead of the encoder."""

from memfeat.decoding.ahead import DecodedVideo, DecodedVideos, decode_ahead, start_decoders
from memfeat.decoding.sampling import CoverCounter, Sampling
from memfeat.decoding.worker import DecodeResult, DecodeSettings

__all__ = [
    "CoverCounter",
    "DecodeResult",
    "DecodeSettings",
    "DecodedVideo",
    "DecodedVideos",
    "Sampling",
    "decode_ahead",
    "start_decoders",
]
