"""Every image tower of open_clip, with its pooled feature before the projection.

OpenAI's CLIP and some others were trained with QuickGELU, `x * sigmoid(1.702 x)`, and give wrong
features with GELU without any sign of it. open_clip goes by the model's name. Here the weights, the
name and --activation must agree, and the activation is read back from the modules built.
"""

from typing import Any

import torch
from torch import nn

from memfeat.config import Tokens, count_tokens
from memfeat.devices import seeded
from memfeat.encoders import openclip_weights, timm_models
from memfeat.encoders.checkpoints import fit, half_precision, tensors_sha256
from memfeat.encoders.family import (
    ENCODERS,
    EncoderFamily,
    Tower,
    VectorShape,
    built_activation,
    feature_width,
    refuse_activation,
    refuse_tokens,
    square_size,
)
from memfeat.encoders.openclip_weights import Source, library, plain
from memfeat.encoders.patches import OpenClipPatches
from memfeat.errors import EncoderError

NO_TEXT = {"context_length": 1, "vocab_size": 1, "width": 64, "heads": 1, "layers": 1}


@ENCODERS.register("open_clip")
class OpenClip(EncoderFamily):
    """Any model that `open_clip.list_models()` names, without its text tower."""

    default_weights = "openai"

    @staticmethod
    def names() -> tuple[str, ...]:
        """Return open_clip's model names."""
        return tuple(library().list_models())

    tags = staticmethod(openclip_weights.tags)
    locate = staticmethod(openclip_weights.locate)

    @staticmethod
    def shape(name: str, tokens: Tokens = "cls") -> VectorShape:
        """Return what a model gives."""
        return VectorShape(_plan(name, tokens)[0], count_tokens(tokens))

    @staticmethod
    def build(
        name: str, weights: str, activation: str, seed: int, *, tokens: Tokens = "cls"
    ) -> Tower:
        """Build the image tower up to what it pools, before the projection.

        For a vision transformer that is the class token after the last layer norm: 1024 wide for
        ViT-L-14-336 and 768 for ViT-B-32 (paper, section 2.1). Attention pools, averages and
        maps of other towers are kept, and what follows them is dropped.
        """
        dim, image_size = _plan(name, tokens)  # refuse before anything is loaded
        source = openclip_weights.source(name, weights)
        quick_gelu = quick_gelu_of(name, activation, source) if _has_choice(name) else None
        tower = _tower(name, bool(quick_gelu), seed)
        known = load_weights(name, tower, source, activation, quick_gelu)
        projection = _projection(name, tower)
        return Tower(
            **known,
            dim=dim,
            image_size=image_size,
            mean=source.mean,
            std=source.std,
            module=_with_tokens(name, _without_projection(name, tower), tokens, image_size),
            tokens=tokens,
            projection=projection,
        )


def load_weights(
    name: str, tower: nn.Module, source: Source, activation: str, quick_gelu: bool | None
) -> dict[str, Any]:
    """Load the weights of a tower; return what is known of them, by the fields of a `Tower`.

    `quick_gelu` is what it was built with; None where that changes nothing.

    Raises:
        EncoderError: the weights cannot be had or do not fit, or its activation is another.
    """
    tensors = source.load() if source.load else None
    if tensors is not None:
        fit(tower, tensors, name, source.origin)
    built = built_activation(tower)
    if quick_gelu is None:
        refuse_activation(name, built, activation)
    elif (built == "quickgelu") != quick_gelu:
        raise EncoderError(
            f"open_clip built {name} with {built}, though quick_gelu={quick_gelu} was asked "
            "for; this version of open_clip cannot be used with memfeat"
        )
    return {
        "name": name,
        "weights": source.label,
        "weights_sha256": tensors_sha256(tower),
        "trained_on": source.trained_on,
        "activation": built,
        "half_precision": half_precision(tensors),
    }


def _plan(name: str, tokens: Tokens) -> tuple[int, int]:
    """Return the length of a vector and the side of the image, from shapes alone, at once."""
    with torch.device("meta"):
        tower = _without_projection(name, _tower(name, False, seed=0))
        image_size = _image_size(name, tower)
        dim = feature_width(name, tower, image_size)
        _with_tokens(name, tower, tokens, image_size)
    return dim, image_size


def _tower(name: str, quick_gelu: bool, seed: int) -> Any:
    """Build the image tower alone, with random weights: open_clip's own class, but no text."""
    config = library().get_model_config(name)
    vision = {**config["vision_cfg"], "timm_model_pretrained": False}
    with seeded(seed):
        model = library().CLIP(
            config["embed_dim"], vision_cfg=vision, text_cfg=NO_TEXT, quick_gelu=quick_gelu
        )
    return model.visual.eval().requires_grad_(False)


def _projection(name: str, tower: Any) -> nn.Module | None:
    """Return what follows a tower's pooling, before it is cut off; None where nothing does."""
    if isinstance(tower, library().timm_model.TimmModel):
        own = library().get_model_config(name)["vision_cfg"].get("timm_proj", "linear")
        found: nn.Module = tower.head if own else tower.trunk.get_classifier()
        return found if any(True for _ in found.parameters()) else None
    if isinstance(tower, library().modified_resnet.ModifiedResNet):
        layer: nn.Module = tower.attnpool.c_proj
        return layer
    if getattr(tower, "proj", None) is None:
        return None
    width, projected = tower.proj.shape
    matrix = nn.Linear(width, projected, bias=False).requires_grad_(False)
    matrix.weight.copy_(tower.proj.T)
    return matrix


def _without_projection(name: str, tower: Any) -> nn.Module:
    """Cut a tower off after its pooling, in place."""
    module: nn.Module = tower
    if isinstance(tower, library().transformer.VisionTransformer):
        tower.proj = None
        tower.output_tokens = False  # CoCa's would return its tokens too
    elif isinstance(tower, library().modified_resnet.ModifiedResNet):
        # Its attention pool multiplies by this layer's weight itself, so it has to have one.
        tower.attnpool.c_proj = _identity(tower.attnpool.c_proj.in_features)
    elif isinstance(tower, library().timm_model.TimmModel):
        tower.head = nn.Identity()
        if not library().get_model_config(name)["vision_cfg"].get("timm_proj", "linear"):
            tower.trunk.reset_classifier(0)  # the trunk's classifier serves as the projection
    else:
        raise EncoderError(
            f"{name} has an image tower of a kind unknown to memfeat, {type(tower).__name__}; "
            "choose another encoder"
        )
    return module


def _with_tokens(name: str, tower: Any, tokens: Tokens, image_size: int) -> nn.Module:
    """Let a tower that is cut off give patch tokens too, if they are asked for.

    Raises:
        ConfigError: it has none, or fewer; an attention pool's queries are no patches.
    """
    module: nn.Module = tower
    if tokens == "cls":
        return module
    if isinstance(tower, library().timm_model.TimmModel):
        return timm_models.with_tokens(name, tower.trunk, tokens, image_size)
    if not isinstance(tower, library().transformer.VisionTransformer) or tower.attn_pool:
        refuse_tokens(name, tokens)
    return OpenClipPatches(name, tower, tower.grid_size, tokens)


def _identity(width: int) -> nn.Linear:
    layer = nn.Linear(width, width).requires_grad_(False)
    nn.init.eye_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def _image_size(name: str, tower: Any) -> int:
    size = tower.image_size
    return square_size(name, size if isinstance(size, tuple | list) else (size, size))


def _has_choice(name: str) -> bool:
    """Whether quick_gelu changes the image tower: not in timm's models, nor in ResNets' ReLU."""
    vision = library().get_model_config(name)["vision_cfg"]
    return "timm_model_name" not in vision and isinstance(vision["layers"], int)


def quick_gelu_of(name: str, activation: str, source: Source) -> bool:
    """Decide on QuickGELU from everything that says something about it.

    Raises:
        EncoderError: two statements contradict each other, or there are weights and no statement.
    """
    statements = {}
    if source.quick_gelu is not None:
        statements[source.quick_gelu] = source.evidence
    if activation != "auto":
        statements.setdefault(activation == "quickgelu", f"--activation {activation}")
    if library().get_model_config(name).get("quick_gelu", False):
        statements.setdefault(True, f"the name {name}")
    if len(statements) == 2:
        raise EncoderError(
            f"{name}: {statements[True]} says quickgelu, but {statements[False]} says gelu; under "
            "the wrong one all features are wrong without any sign of it. Change the one that is "
            f"wrong: encoder {plain(name)} without --activation takes what the weights say"
        )
    if not statements and source.load is not None:
        raise EncoderError(
            f"{source.origin} does not tell which activation it was trained with, and under the "
            "wrong one all features are wrong without any sign of it. Pass --activation quickgelu "
            "for weights of OpenAI, MetaCLIP or DFN, and --activation gelu for LAION, DataComp "
            "and whatever open_clip trained since"
        )
    return next(iter(statements), False)
