"""Inception-I3D, a convolutional network over space and time (Carreira and Zisserman 2017).

Names and shapes are those of the PyTorch checkpoints that go round, `rgb_imagenet.pt` and
`rgb_charades.pt`. Their weights were trained in TensorFlow, which explains the paddings.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

FEATURE_DIM = 1024
KINETICS_CLASSES = 400

# Widths of a block's branches: 1; 1 then 3; 1 then 3; pool then 1 (figure 3 of the paper).
_BLOCKS = {
    "Mixed_3b": (64, 96, 128, 16, 32, 32),
    "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "Mixed_4b": (192, 96, 208, 16, 48, 64),
    "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64),
    "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
    "Mixed_5b": (256, 160, 320, 32, 128, 128),
    "Mixed_5c": (384, 192, 384, 48, 128, 128),
}

Widths = tuple[int, int, int, int, int, int]
Sizes = tuple[int, int, int]


class InceptionI3d(nn.Module):
    """RGB Inception-I3D; 12,697,264 parameters with 400 classes.

    Attributes:
        gradient_checkpointing: recompute the blocks in the backward pass instead of keeping what
            they made; slower, in a fraction of the memory, with the same gradients.
    """

    def __init__(self, classes: int = KINETICS_CLASSES, dropout: float = 0.5) -> None:
        super().__init__()
        self.gradient_checkpointing = False
        self.dropout = nn.Dropout(dropout)
        self.logits = ConvUnit(FEATURE_DIM, classes, (1, 1, 1), normed=False)
        self.Conv3d_1a_7x7 = ConvUnit(3, 64, (7, 7, 7), (2, 2, 2))
        self.Conv3d_2b_1x1 = ConvUnit(64, 64, (1, 1, 1))
        self.Conv3d_2c_3x3 = ConvUnit(64, 192, (3, 3, 3))
        width = 192
        for name, widths in _BLOCKS.items():
            block = Mixed(width, widths)
            self.add_module(name, block)
            width = block.width

    def features(self, frames: Tensor) -> Tensor:
        """Return what the classifier would see.

        Args:
            frames: (batch, 3, time, height, width), RGB in [-1, 1]; 9 frames or more.

        Returns:
            (batch, steps, 1024): averages over two steps of the last map and all of its height
            and width, which at 224 px is 7 x 7. Of 16 frames 1 step, of 64 frames 7.
        """
        maps = self.Conv3d_2b_1x1(max_pool(self.Conv3d_1a_7x7(frames), (1, 3, 3), (1, 2, 2)))
        maps = max_pool(self.Conv3d_2c_3x3(maps), (1, 3, 3), (1, 2, 2))
        maps = self._blocks("Mixed_3", maps)
        maps = self._blocks("Mixed_4", max_pool(maps, (3, 3, 3), (2, 2, 2)))
        maps = self._blocks("Mixed_5", max_pool(maps, (2, 2, 2), (2, 2, 2)))
        steps = maps.mean((3, 4)).transpose(1, 2)
        return (steps[:, :-1] + steps[:, 1:]) / 2

    def forward(self, frames: Tensor) -> Tensor:
        """Return logits (batch, steps, classes) of frames as `features` takes them."""
        return self.scores(self.features(frames))

    def scores(self, features: Tensor) -> Tensor:
        """Return logits (batch, steps, classes) of features (batch, steps, FEATURE_DIM)."""
        dropped: Tensor = self.dropout(features)
        scores: Tensor = self.logits(dropped.transpose(1, 2)[..., None, None])
        return scores.flatten(2).transpose(1, 2)

    def _blocks(self, prefix: str, maps: Tensor) -> Tensor:
        for name in _BLOCKS:
            if name.startswith(prefix):
                block = self.get_submodule(name)
                if self.gradient_checkpointing and torch.is_grad_enabled():
                    maps = _checkpointed(block, maps)
                else:
                    maps = block(maps)
        return maps


class Mixed(nn.Module):
    """Four branches side by side over the same maps: the paper's inception block."""

    def __init__(self, incoming: int, widths: Widths) -> None:
        super().__init__()
        single, reduced, wide, reduced_less, narrow, pooled = widths
        self.b0 = ConvUnit(incoming, single, (1, 1, 1))
        self.b1a = ConvUnit(incoming, reduced, (1, 1, 1))
        self.b1b = ConvUnit(reduced, wide, (3, 3, 3))
        self.b2a = ConvUnit(incoming, reduced_less, (1, 1, 1))
        self.b2b = ConvUnit(reduced_less, narrow, (3, 3, 3))
        self.b3b = ConvUnit(incoming, pooled, (1, 1, 1))
        self.width = single + wide + narrow + pooled

    def forward(self, maps: Tensor) -> Tensor:
        """Map (batch, incoming, time, height, width) to (batch, width, time, height, width)."""
        branches = (
            self.b0(maps),
            self.b1b(self.b1a(maps)),
            self.b2b(self.b2a(maps)),
            self.b3b(max_pool(maps, (3, 3, 3), (1, 1, 1))),
        )
        return torch.cat(branches, dim=1)


class ConvUnit(nn.Module):
    """A convolution with SAME padding, then batch norm and ReLU; of the logits, with bias alone."""

    def __init__(
        self,
        incoming: int,
        width: int,
        kernel: Sizes,
        stride: Sizes = (1, 1, 1),
        *,
        normed: bool = True,
    ) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(incoming, width, kernel, stride, bias=not normed)
        # Without it random weights let signals fade, and batch norms take a while to undo that.
        nn.init.kaiming_normal_(self.conv3d.weight, nonlinearity="relu" if normed else "linear")
        self.bn = nn.BatchNorm3d(width, eps=1e-3) if normed else nn.Identity()
        self.activation = nn.ReLU(inplace=True) if normed else nn.Identity()

    def forward(self, maps: Tensor) -> Tensor:
        """Map (batch, incoming, time, height, width) to as many steps a side as SAME gives."""
        kernel, stride = self.conv3d.kernel_size, self.conv3d.stride
        pads = [same_padding(*each) for each in zip(maps.shape[2:], kernel, stride, strict=True)]
        padding = [before for before, _ in pads]
        if any(before != after for before, after in pads):
            # functional.pad goes from the last dimension to the first.
            maps = functional.pad(maps, [side for pair in reversed(pads) for side in pair])
            padding = [0, 0, 0]
        weight, bias = self.conv3d.weight, self.conv3d.bias
        maps = functional.conv3d(maps, weight, bias, stride, padding)
        activated: Tensor = self.activation(self.bn(maps))
        return activated


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Return how much TensorFlow's SAME puts before and after a side; the odd one goes after."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def max_pool(maps: Tensor, kernel: Sizes, stride: Sizes) -> Tensor:
    """Pool maps without negative values, such as come out of a ReLU, with SAME padding.

    Padding these with zeros, as the checkpoints expect, or with minus infinity, as torch does,
    is the same; and a last window that juts out is one that is padded after. It does not jut out
    at stride 1, where kernels must be odd.
    """
    before = [same_padding(*each)[0] for each in zip(maps.shape[2:], kernel, stride, strict=True)]
    return functional.max_pool3d(maps, kernel, stride, before, ceil_mode=True)


def _checkpointed(block: nn.Module, maps: Tensor) -> Tensor:
    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _statistics_kept(block)

    result: Tensor = checkpoint(block, maps, use_reentrant=False, context_fn=contexts)
    return result


@contextmanager
def _statistics_kept(block: nn.Module) -> Iterator[None]:
    """Let batch norms not count a batch a second time while it is computed again."""
    norms = [part for part in block.modules() if isinstance(part, nn.BatchNorm3d)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm, (_, batches) in zip(norms, before, strict=True):
        norm.momentum = 0.0
        norm.num_batches_tracked = batches if batches is None else batches.clone()
    try:
        yield
    finally:
        for norm, (momentum, batches) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, batches
