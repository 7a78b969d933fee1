"""Encoders by name: which there are, what is known of them, and how one is built."""

from pathlib import Path

from memfeat.config import LAST_LAYER, Tokens
from memfeat.devices import resolve_device
from memfeat.encoders.checkpoints import means_file, weights_path
from memfeat.encoders.encoder import FrameEncoder, choose_precision
from memfeat.encoders.family import ACTIVATIONS, ENCODERS, RANDOM, EncoderFamily, Tower, VectorShape
from memfeat.encoders.layers import end_after
from memfeat.encoders.texts import text_family_of
from memfeat.registry import unknown_name


def encoder_names() -> tuple[str, ...]:
    """Return every encoder name, family by family."""
    return tuple(name for family in ENCODERS for name in ENCODERS.get(family).names())


def create_encoder(
    name: str,
    weights: str | None = None,
    *,
    activation: str = "auto",
    tokens: Tokens = "cls",
    layer: int = LAST_LAYER,
    precision: str = "auto",
    device: str = "cpu",
    compiled: bool = False,
    seed: int = 0,
) -> FrameEncoder:
    """Build a frame encoder by name.

    Args:
        name: one of `encoder_names()`.
        weights: pretrained tag, path of a checkpoint, or `random`; None for the family's default.
        activation: `gelu` or `quickgelu` for a checkpoint file that does not state it; else `auto`.
        tokens: `cls`, or such as `cls+2x2` for a grid of patch tokens too.
        layer: block of a Vision Transformer after which it ends; -1 for the last.
        precision: `float32`, `bfloat16`, `float16`; `half` for that of the weights; or `auto`:
            half on a GPU, else float32.
        device: such as `cpu`, `cuda` or `cuda:1`.
        compiled: whether torch compiles it.
        seed: of the weights if they are random.

    Raises:
        UnknownNameError: no such encoder, or no such weights for it.
        EncoderError: the weights cannot be had, do not fit, or contradict `activation`; or the
            device or precision cannot be used.
        ConfigError: `tokens` or a `layer` that the encoder cannot give.
    """
    _family_of(name)
    on = resolve_device(device)
    choose_precision(precision, on)  # a mistake should not cost the loading of a model
    tower = build_tower(name, weights, activation=activation, tokens=tokens, layer=layer, seed=seed)
    return FrameEncoder(tower, precision=precision, device=on, compiled=compiled)


def build_tower(
    name: str,
    weights: str | None = None,
    *,
    activation: str = "auto",
    tokens: Tokens = "cls",
    layer: int = LAST_LAYER,
    seed: int = 0,
) -> Tower:
    """Build an encoder's model alone; arguments and errors are those of `create_encoder`."""
    family = _family_of(name)
    if activation not in ACTIVATIONS:
        raise unknown_name("activation", activation, ACTIVATIONS)
    weights = weights or family.default_weights
    return end_after(family.build(name, weights, activation, seed, tokens=tokens), layer)


def vector_shape(name: str, tokens: Tokens = "cls") -> VectorShape:
    """Return what an encoder gives, at once and without its weights.

    Raises:
        UnknownNameError: no such encoder.
        EncoderError: it does not turn a square image into one vector.
        ConfigError: `tokens` that the encoder cannot give.
    """
    return _family_of(name).shape(name, tokens)


def encoder_tags(name: str) -> tuple[str, ...]:
    """Return the pretrained weights known for an encoder.

    Raises:
        UnknownNameError: no such encoder.
    """
    return _family_of(name).tags(name)


def reachable_weights(name: str, weights: str | None = None) -> Path | None:
    """Return the file of an encoder's pretrained weights if it is on this machine, else None.

    Touches no network. `weights` is a tag, by default the family's.

    Raises:
        UnknownNameError: no such encoder.
    """
    family = _family_of(name)
    return family.locate(name, weights or family.default_weights)


def weights_at_hand(name: str, weights: str | None = None) -> str:
    """Say in words where an encoder's weights are. Touches no network.

    Args:
        name: of the encoder.
        weights: a tag, by default the family's; the path of a checkpoint; or `random`.

    Raises:
        UnknownNameError: no such encoder.
    """
    family = text_family_of(name) or _family_of(name)
    wanted = weights or family.default_weights
    if not wanted:
        return f"none by a name: give --weights FILE, or {RANDOM}"
    if wanted == RANDOM:
        return RANDOM
    if means_file(wanted):
        return wanted if weights_path(wanted).exists() else f"there is no file {wanted}"
    found = family.locate(name, wanted)
    return str(found or f"{wanted}, which is not on this machine and is fetched first")


def _family_of(name: str) -> type[EncoderFamily]:
    families = [ENCODERS.get(key) for key in ENCODERS]
    owners = [family for family in families if family.prefix and name.startswith(family.prefix)]
    for family in owners or [family for family in families if not family.prefix]:
        if name in family.names():
            return family
    raise unknown_name("encoder", name, encoder_names())
