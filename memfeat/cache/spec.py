"""What made a cache, so that caches of different making are never mixed up."""

import shlex
from collections.abc import Container
from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from memfeat.config import (
    LAST_LAYER,
    ExtractConfig,
    Printed,
    Resize,
    Settings,
    Tokens,
    count_tokens,
)
from memfeat.errors import CacheError

INTERPOLATION: dict[Resize, str] = {
    "squash": "antialiased bicubic, squashed",
    "crop": "antialiased bicubic, cropped to the middle",
}
LATER = {"layer": LAST_LAYER, "fps": None}  # fields of later versions, not written where so
SCHEMA_VERSION: Literal[2] = 2
IMPORTED = "imported"
CHOOSABLE = ("gelu", "quickgelu")  # activations that a checkpoint may leave open
FILE = "file:"  # what `weights` begins with where they came from a file, before its name
TEXT = "text: "  # what `sampling` begins with where texts were encoded, not frames
NO_TEXT = "no_text"  # why a video has no rows in a cache of texts
ROUNDING = {"batch_size"}  # fields that change last bits at most, which no model can tell


class CacheSpec(Settings):
    """What made the embeddings. Two caches may be mixed or swapped only if their specs are equal.

    `mean` and `std` are for pixels in [0, 1]. `trained_on` says in words where the weights come
    from, so that no table made with random weights can pass for another. Of features made
    elsewhere and imported, `trained_on` says where they come from, and what is not known is None.

    Attributes:
        dim: length of one vector.
        tokens: which vectors of each frame: its class token, and with `cls+2x2` also the means
            of its patch tokens over a grid of 2 rows and 2 columns.
        clip_frames: consecutive frames that one vector is made of.
        layer: block of a Vision Transformer after which it ends; -1 for the last.
        untagged_hd: the matrix with which untagged video of 720 lines or more is turned into RGB:
            `BT.709`, and `BT.601` in caches made before this was recorded. In those, pixels of some
            rare formats (floating-point or limited-range grey, raw RGB of 12 or 16 bits), and of
            HEVC and VP9 whose matrix the container alone names, may have other colours, and what
            Theora repeats is missing; so it stands for these changes, too.
        fps: at which folders of numbered frames are read, where that was said.
        sampling: which frames are kept; see `memfeat.decoding.sampling`. `as given` for features
            made elsewhere: a row for each step there was. Of texts `text: ` and which.
    """

    schema_version: Literal[2] = SCHEMA_VERSION
    encoder: Printed
    weights: Printed
    weights_sha256: Printed
    trained_on: Printed
    activation: Printed
    dim: int = Field(ge=1)
    tokens: Tokens = "cls"
    clip_frames: int = Field(1, ge=1)
    layer: int = Field(LAST_LAYER, ge=LAST_LAYER)
    image_size: int | None
    interpolation: Printed | None = INTERPOLATION["squash"]
    mean: tuple[float, float, float] | None
    std: tuple[float, float, float] | None
    untagged_hd: Literal["BT.601", "BT.709"] = "BT.601"
    sampling: Printed = "every"
    fps: float | None = None
    max_frames: int | None = None
    max_seconds: float | None = None
    precision: Printed | None
    compiled: bool = False
    batch_size: int | None
    normalisation: Printed = "l2"
    dtype: Printed = "float16"

    @model_serializer(mode="wrap")
    def _without_later_defaults(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out later fields that have their defaults, so that bytes stay as they were."""
        return {
            name: value
            for name, value in write(self).items()
            if name not in LATER or value != LATER[name]
        }

    @property
    def is_random(self) -> bool:
        """Whether the encoder's weights were never trained."""
        return self.weights == "random"

    @property
    def file(self) -> str:
        """The name of the checkpoint file that the weights came from; empty if from none."""
        return self.weights.removeprefix(FILE) if self.weights.startswith(FILE) else ""

    @property
    def asked_activation(self) -> str:
        """What to build the encoder with: its activation where a file leaves that open."""
        return self.activation if self.file and self.activation in CHOOSABLE else "auto"

    @property
    def is_imported(self) -> bool:
        """Whether the features were made elsewhere, so that memfeat cannot make more of them."""
        return self.weights == IMPORTED

    @property
    def is_text(self) -> bool:
        """Whether the features are of texts, not of frames."""
        return self.sampling.startswith(TEXT)

    @property
    def resize(self) -> Resize:
        """How frames become square."""
        return "crop" if self.interpolation == INTERPOLATION["crop"] else "squash"

    @property
    def num_tokens(self) -> int:
        """Vectors a frame."""
        return count_tokens(self.tokens)

    @property
    def width(self) -> int:
        """Numbers in a row of a shard: all of a frame's vectors, end to end."""
        return self.dim * self.num_tokens

    def describe(self) -> str:
        """Name encoder and weights in one line, for tables and pictures."""
        if self.is_imported:
            return f"{self.encoder}, made elsewhere ({self.trained_on}), {self.dim}-d"
        tokens = f" x {self.num_tokens} tokens ({self.tokens})" if self.num_tokens > 1 else ""
        clips = f", one vector for {self.clip_frames} frames" if self.clip_frames > 1 else ""
        sampled = f", frames sampled by {self.sampling}" if self.sampling != "every" else ""
        if self.is_text:
            sampled = f", of {self.sampling}"
        layer = f", of block {self.layer}" if self.layer != LAST_LAYER else ""
        cropped = ", cropped" if self.resize == "crop" else ""
        how = f"{self.dim}-d{layer}{tokens}{clips}{cropped}{sampled}"
        if self.is_random:
            return (
                f"{self.encoder} with RANDOM WEIGHTS: its features carry no learned content ({how})"
            )
        return f"{self.encoder}, {self.weights} weights ({self.trained_on}), {how}"

    @property
    def flags(self) -> str:
        """The flags of `memfeat extract` that make such embeddings, but for a checkpoint's path."""
        texts = self.sampling.removeprefix(TEXT).split(", ") if self.is_text else []
        values = {
            "encoder": self.encoder,
            "weights": self.weights if self.is_random else None,
            "tokens": self.tokens,
            "layer": self.layer,
            "resize": self.resize,
            "fps": self.fps,
            "sampler": "every" if texts else self.sampling,
            "max_frames": self.max_frames,
            "max_seconds": self.max_seconds,
            "batch_size": self.batch_size,
        }
        flags = [
            f"--{name.replace('_', '-')} {shlex.quote(str(value))}"
            for name, value in values.items()
            if name == "encoder" or value != ExtractConfig.model_fields[name].default
        ]
        return " ".join([*flags, *(f"--text {shlex.quote(text)}" for text in texts)])

    def require(self, other: "CacheSpec", message: str, *, ignored: Container[str] = ()) -> None:
        """Refuse `other` unless it equals this spec in all fields but those `ignored`.

        Raises:
            CacheError: `message`, then every field that differs with both values, and of a
                checkpoint that now gives other weights what to do.
        """
        differing = [
            name
            for name in type(self).model_fields
            if name not in ignored and getattr(self, name) != getattr(other, name)
        ]
        differences = [
            f"{name} is {getattr(other, name)!r}, not {getattr(self, name)!r}" for name in differing
        ]
        if differing == ["weights_sha256"] and (file := self.file):
            differences.append(
                f"if {file} holds several state dicts, such as a model's and its moving average's "
                f"(EMA), save the one that is wanted as {file} in another folder, as by torch.save("
                f"torch.load({file!r})['state_dict'], {'one/' + file!r}), and give that as weights"
            )
        if differences:
            raise CacheError(f"{message}: {'; '.join(differences)}")
