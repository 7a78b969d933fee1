"""Stage 1: videos to a cache of embeddings."""

from memfeat.extraction.encoding import VideoOutcome, clips_of, encode_video
from memfeat.extraction.extracting import ExtractionSummary, extract
from memfeat.extraction.rates import Rates

__all__ = [
    "ExtractionSummary",
    "Rates",
    "VideoOutcome",
    "clips_of",
    "encode_video",
    "extract",
]
