"""The network that is finetuned: I3D with one output, the score's logit."""

from pathlib import Path

import torch
from torch import Tensor, nn

from memfeat.config import FinetuneConfig
from memfeat.devices import seeded
from memfeat.encoders.checkpoints import tensors_sha256
from memfeat.encoders.family import RANDOM
from memfeat.encoders.i3d import build_network, read_network, trained_on
from memfeat.encoders.inception import FEATURE_DIM, ConvUnit, InceptionI3d


def starting_network(config: FinetuneConfig) -> tuple[InceptionI3d, dict[str, str]]:
    """Build the network to start from; a last layer of one class is kept, any other replaced.

    Returns:
        The network, in float32 on the CPU; and its origin: `started_from` in words, and the
        `started_from_sha256` of the weights as they were found.

    Raises:
        EncoderError: the file cannot be read, or does not fit.
    """
    if config.weights == RANDOM:
        network, origin = build_network(1, config.seed), "RANDOM WEIGHTS"
    else:
        path = Path(config.weights).expanduser()
        network = read_network(path)
        origin = f"{path.name} ({trained_on(path, network)})"
    facts = {"started_from": origin, "started_from_sha256": tensors_sha256(network)}
    if network.logits.conv3d.out_channels != 1:
        with seeded(config.seed):
            network.logits = ConvUnit(FEATURE_DIM, 1, (1, 1, 1), normed=False)
    network.dropout = nn.Dropout(config.dropout)
    network.gradient_checkpointing = bool(config.gradient_checkpointing)
    return network, facts


def clip_logits(network: InceptionI3d, pixels: Tensor, config: FinetuneConfig) -> Tensor:
    """Return the logit of each clip's score, float32 (batch,).

    Args:
        network: on its device.
        pixels: uint8 (batch, 16, height, width, 3), RGB.
        config: with the precision decided.
    """
    device = network.logits.conv3d.weight.device
    clips = pixels.to(device, non_blocking=True).movedim(-1, 1).float()
    clips = clips.sub_(127.5).div_(127.5)
    with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
        logits: Tensor = network(clips)
    return logits.float().mean(dim=(1, 2))


def train_mode(network: InceptionI3d, *, frozen: bool) -> None:
    """Turn dropout on, and let batch norms use and gather each batch's statistics if not frozen."""
    network.train()
    for part in network.modules():
        if frozen and isinstance(part, nn.BatchNorm3d):
            part.eval()
