"""Predict how memorable a video is: cached frame embeddings in, scores out."""

__version__ = "0.1.0"
