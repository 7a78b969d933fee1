"""Patch tokens of Vision Transformers, averaged over a coarse grid beside the frame's feature."""

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from memfeat.config import Tokens, token_grid
from memfeat.errors import ConfigError


class WithPatches(nn.Module):
    """A tower that gives its feature, then the means of its patch tokens over a grid.

    The paper names attention over patches as future work. Where the grid's rows or columns do not
    divide those of the patches, neighbouring cells share a row or column of patches.

    Attributes:
        tower: what it was without patch tokens.
    """

    def __init__(self, name: str, tower: Any, patches: tuple[int, int], tokens: Tokens) -> None:
        """Wrap the tower of the encoder `name`, which has `patches` rows and columns of them.

        Raises:
            ConfigError: `tokens` asks for a finer grid than that.
        """
        super().__init__()
        self.tower = tower
        self._patches = patches
        self._grid = token_grid(tokens)
        if any(asked > there for asked, there in zip(self._grid, patches, strict=True)):
            raise ConfigError(
                f"{name} has {patches[0]} x {patches[1]} patches, so --tokens {tokens} asks for "
                f"more than there are; give at most cls+{patches[0]}x{patches[1]}"
            )

    @abstractmethod
    def sequence(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the feature (batch, dim), and the patch tokens (batch, patches, dim) after it.

        Both are after the last layer norm.
        """

    def forward(self, images: Tensor) -> Tensor:
        """Turn images (batch, 3, height, width) into vectors end to end, the grid row by row."""
        feature, patches = self.sequence(images)
        maps = patches.transpose(1, 2).reshape(len(images), -1, *self._patches)
        means = functional.adaptive_avg_pool2d(maps, self._grid).flatten(2).transpose(1, 2)
        return torch.cat([feature[:, None], means], dim=1).flatten(1)


class TimmPatches(WithPatches):
    """The Vision Transformers of timm, whatever their feature is pooled from."""

    def sequence(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Take the tokens before the pooling, which some models do before their last layer norm."""
        tokens = self.tower.forward_features(images)
        patches = tokens[:, self.tower.num_prefix_tokens :]
        if isinstance(self.tower.norm, nn.Identity):
            patches = self.tower.fc_norm(patches)
        return self.tower.forward_head(tokens), patches


class OpenClipPatches(WithPatches):
    """open_clip's own Vision Transformers, without attention pool and projection."""

    def sequence(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Let the tower return its tokens too; some pool them before their last layer norm."""
        self.tower.output_tokens = True
        feature, patches = self.tower(images)
        return feature, self.tower.ln_post(patches) if self.tower.final_ln_after_pool else patches
