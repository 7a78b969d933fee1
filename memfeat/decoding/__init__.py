"""Videos to frames in processes of their own: in order, ahead of the encoder, and apart from it."""

from memfeat.decoding.ahead import Ahead, DecodedVideo, decode_ahead, start_decoders
from memfeat.decoding.sampling import Cover, Sampling
from memfeat.decoding.worker import DecodeSettings, Finished

__all__ = [
    "Ahead",
    "Cover",
    "DecodeSettings",
    "DecodedVideo",
    "Finished",
    "Sampling",
    "decode_ahead",
    "start_decoders",
]
