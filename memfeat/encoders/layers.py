"""Features of an intermediate block: Vision Transformers that end early."""

from dataclasses import replace
from typing import Any

from torch import nn

from memfeat.config import LAST_LAYER
from memfeat.encoders.family import Tower
from memfeat.errors import ConfigError

TRANSFORMERS = {"VisionTransformer", "Eva"}  # open_clip's and timm's, and what derives from them


def end_after(tower: Tower, layer: int) -> Tower:
    """Let a tower end after one of its blocks, as though it had no others.

    What follows the blocks stays: the last norm, and the pooling. The weights' hash stays, too.

    Args:
        tower: of a Vision Transformer of open_clip or timm; its blocks are taken out.
        layer: which block, counted from 0, or from -1 backwards.

    Returns:
        The tower, with `layer` as a cache records it: -1 for the last block, else from 0.

    Raises:
        ConfigError: it has no such block, or no blocks.
    """
    if layer == LAST_LAYER:
        return tower
    owner, name = _blocks_of(tower)
    blocks = getattr(owner, name)
    count = len(blocks)
    if not -count <= layer < count:
        raise ConfigError(
            f"{tower.name} has {count} blocks, so --layer {layer} is not there; give 0 to "
            f"{count - 1}, or -1 to {-count} from the last one backwards"
        )
    place = layer % count
    if place == count - 1:
        return tower
    setattr(owner, name, blocks[: place + 1])
    return replace(tower, layer=place, projection=None)


def _blocks_of(tower: Tower) -> tuple[nn.Module, str]:
    """Return which module holds the blocks, and under which name."""
    for part in tower.module.modules():
        if TRANSFORMERS.isdisjoint(kind.__name__ for kind in type(part).__mro__):
            continue
        transformer: Any = getattr(part, "transformer", None)
        if transformer is not None and hasattr(transformer, "resblocks"):
            return transformer, "resblocks"
        if isinstance(getattr(part, "blocks", None), nn.Sequential | nn.ModuleList):
            return part, "blocks"
    raise ConfigError(
        f"{tower.name} is no Vision Transformer, so --layer has no blocks to choose from; leave it "
        "out, or choose one such as ViT-L-14-336 or timm/vit_large_patch16_384"
    )
