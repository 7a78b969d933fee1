"""Stage 1: videos to a cache of embeddings."""

from memfeat.extraction.encoding import VideoOutcome, encode_video
from memfeat.extraction.extracting import ExtractionSummary, extract

__all__ = ["ExtractionSummary", "VideoOutcome", "encode_video", "extract"]
