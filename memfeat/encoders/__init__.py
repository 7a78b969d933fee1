"""Frame encoders: frozen image models, by name, that turn frames into unit vectors.

A family of encoders imports the library that it wraps when one of its encoders is asked for.
"""

from memfeat.encoders import (  # noqa: F401 (registers the families)
    efficientnet,
    i3d,
    openclip,
    timm_models,
)
from memfeat.encoders.choosing import (
    create_encoder,
    encoder_names,
    encoder_tags,
    reachable_weights,
    vector_shape,
)
from memfeat.encoders.encoder import Encoding, FrameEncoder
from memfeat.encoders.family import ENCODERS, EncoderFamily, Tower, VectorShape

__all__ = [
    "ENCODERS",
    "EncoderFamily",
    "Encoding",
    "FrameEncoder",
    "Tower",
    "VectorShape",
    "create_encoder",
    "encoder_names",
    "encoder_tags",
    "reachable_weights",
    "vector_shape",
]
