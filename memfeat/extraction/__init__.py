"""Stage 1: videos to a cache of embeddings."""

from memfeat.extraction.decoding import DecodedVideo, decode_ahead
from memfeat.extraction.encoding import VideoOutcome, clips_of, encode_video
from memfeat.extraction.extracting import ExtractionSummary, extract
from memfeat.extraction.sampling import Sampling

__all__ = [
    "DecodedVideo",
    "ExtractionSummary",
    "Sampling",
    "VideoOutcome",
    "clips_of",
    "decode_ahead",
    "encode_video",
    "extract",
]
