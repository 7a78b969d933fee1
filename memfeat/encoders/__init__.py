"""Encoders: frozen models, by name, that turn frames, or texts, into unit vectors.

A family of encoders imports the library that it wraps when one of its encoders is asked for.
"""

from memfeat.encoders import (  # noqa: F401 (registers the families)
    efficientnet,
    i3d,
    openclip,
    openclip_texts,
    resmem,
    sentences,
    timm_models,
    torchvision_video,
)
from memfeat.encoders.choosing import (
    build_tower,
    create_encoder,
    encoder_names,
    encoder_tags,
    reachable_weights,
    vector_shape,
    weights_at_hand,
)
from memfeat.encoders.encoder import PRECISIONS, Encoding, FrameEncoder
from memfeat.encoders.family import ENCODERS, EncoderFamily, Tower, VectorShape
from memfeat.encoders.texts import (
    TEXT_ENCODERS,
    TextEncoder,
    TextFamily,
    TextTower,
    create_text_encoder,
    is_text_encoder,
    text_encoder_names,
)
from memfeat.encoders.variants import GELUS, build_variant

__all__ = [
    "ENCODERS",
    "GELUS",
    "PRECISIONS",
    "TEXT_ENCODERS",
    "EncoderFamily",
    "Encoding",
    "FrameEncoder",
    "TextEncoder",
    "TextFamily",
    "TextTower",
    "Tower",
    "VectorShape",
    "build_tower",
    "build_variant",
    "create_encoder",
    "create_text_encoder",
    "encoder_names",
    "encoder_tags",
    "is_text_encoder",
    "reachable_weights",
    "text_encoder_names",
    "vector_shape",
    "weights_at_hand",
]
