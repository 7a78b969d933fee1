"""Stage 1: videos to a cache of embeddings."""

from memfeat.extraction.encoding import Clips, VideoOutcome, encode_video, encode_videos
from memfeat.extraction.explaining import Explanation, explain
from memfeat.extraction.extracting import ExtractionSummary, extract
from memfeat.extraction.pending import plan_extraction
from memfeat.extraction.pipeline import usual_decoders
from memfeat.extraction.rates import Rates
from memfeat.extraction.text_shards import encode_text

__all__ = [
    "Clips",
    "Explanation",
    "ExtractionSummary",
    "Rates",
    "VideoOutcome",
    "encode_text",
    "encode_video",
    "encode_videos",
    "explain",
    "extract",
    "plan_extraction",
    "usual_decoders",
]
