"""The frame encoder: a frozen image model that turns uint8 frames into unit vectors."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from memfeat.cache import INTERPOLATION, CacheSpec
from memfeat.config import UNTAGGED_HD, Resize, build, count_tokens
from memfeat.devices import CPU, exact_float32
from memfeat.encoders.family import Tower
from memfeat.errors import EncoderError, NoDirectionError
from memfeat.registry import unknown_name

NO_MEMORY = "can't allocate memory"  # as torch says it of the CPU's
PRECISIONS = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
# What a cache records of an encoder under the attribute's own name.
RECORDED = (
    *("weights", "weights_sha256", "trained_on", "activation", "dim", "tokens", "clip_frames"),
    "layer",
    *("image_size", "mean", "std", "precision", "compiled"),
)


class Encoder:
    """Base of all encoders: a frozen model on a device.

    Attributes:
        name: the encoder's.
        precision: `float32`, `bfloat16` or `float16`.
        compiled: whether torch compiles it, for each batch size anew when that is first seen.
        device: where it runs.
    """

    name: str
    precision: str
    compiled: bool = False
    device: torch.device

    @contextmanager
    def errors_of_device(self, what: str) -> Iterator[None]:
        """Turn errors of torch and the device into `EncoderError`; `what` is worked on."""
        try:
            yield
        except RuntimeError as error:  # those of CUDA are such, too little memory included
            reason = str(error).strip().partition("\n")[0]
            if isinstance(error, torch.cuda.OutOfMemoryError) or NO_MEMORY in reason:
                text = f"there is no memory on {self.device} for {what} with {self.name}; "
                advice = "give a smaller --batch-size, or end what else uses it"
            elif "CUDA" in reason or "cuda" in type(error).__module__:
                text = f"{self.device} failed at {what} with {self.name} ({reason}); "
                advice = "`memfeat doctor` tries it; finished shards are kept"
            elif self.compiled:
                text = f"torch cannot compile {self.name} here ({reason}); "
                advice = "leave out --compile"
            else:
                raise
            raise EncoderError(text + advice) from error


class FrameEncoder(Encoder):
    """A frozen image encoder: frames, or clips of several, to unit vectors (paper, section 2.1).

    The same weights, precision, device, number of threads and batch size give the same vector for
    the same frame, to the last bit, wherever it stands in the batch. It also has the attributes of
    its `Tower`, but for the module.
    """

    def __init__(
        self,
        tower: Tower,
        *,
        precision: str = "auto",
        device: torch.device = CPU,
        compiled: bool = False,
    ) -> None:
        self.name = tower.name
        self.weights = tower.weights
        self.weights_sha256 = tower.weights_sha256
        self.trained_on = tower.trained_on
        self.activation = tower.activation
        self.dim = tower.dim
        self.tokens = tower.tokens
        self.clip_frames = tower.clip_frames
        self.layer = tower.layer
        self.image_size = tower.image_size
        self.mean = tower.mean
        self.std = tower.std
        self.inputs = "frames" if self.clip_frames == 1 else f"clips of {self.clip_frames} frames"
        self.device = device
        self.precision = choose_precision(precision, device, tower.half_precision)
        self._dtype = PRECISIONS[self.precision]
        with self.errors_of_device("the weights"):
            if device.type == "cuda":
                torch.cuda.set_device(device)  # or pinned memory would take a context of another
            self._module = tower.module.eval().requires_grad_(False).to(device, self._dtype)
            if self.clip_frames == 1:
                # Frames arrive channels last; convolutions are up to twice as fast if they stay so.
                self._module.to(memory_format=torch.channels_last)
            self._shift = self._per_channel(self.mean)
            self._scale = self._per_channel(self.std)
        self.compiled = compiled
        if compiled:
            self._module.compile(dynamic=False)

    @property
    def width(self) -> int:
        """Numbers in a row: `dim` for each token."""
        return self.dim * count_tokens(self.tokens)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of what one row is made of: (image_size, image_size, 3), or a clip of those."""
        frame = (self.image_size, self.image_size, 3)
        return frame if self.clip_frames == 1 else (self.clip_frames, *frame)

    def encode(self, pixels: Tensor) -> Tensor:
        """Encode a batch of frames, or of clips, and wait for it.

        Args:
            pixels: uint8 (batch, image_size, image_size, 3), RGB; or with clips (batch,
                clip_frames, image_size, image_size, 3).

        Returns:
            float32 (batch, width) on the CPU: each input's vectors end to end, each of unit L2
            norm, taken in float32.

        Raises:
            EncoderError: pixels of another type or shape, or too little memory.
            NoDirectionError: a feature is zero or not finite.
        """
        return self.begin(pixels).result()

    def begin(self, pixels: Tensor) -> "Encoding":
        """Begin to encode a batch as `encode` does; a GPU is not waited for.

        Its pixels may be written to again once the result is there.

        Raises:
            EncoderError: pixels of another type or shape, or too little memory.
        """
        self._check(pixels)
        what = f"{len(pixels)} {self.inputs} at once"
        with self.errors_of_device(what), exact_float32(), torch.inference_mode():
            images = pixels.to(self.device, non_blocking=True).movedim(-1, 1).float()
            images = images.sub_(self._shift).div_(self._scale).to(self._dtype)
            features: Tensor = self._module(images).float()
            vectors = features.view(len(pixels), -1, self.dim)
            norms = torch.linalg.vector_norm(vectors, dim=2, keepdim=True)
            return Encoding(self, vectors.div(norms).flatten(1), norms.flatten(1))

    def spec(
        self,
        *,
        batch_size: int,
        max_frames: int | None = None,
        max_seconds: float | None = None,
        sampling: str = "every",
        resize: Resize = "squash",
        fps: float | None = None,
    ) -> CacheSpec:
        """Return what a cache of this encoder's embeddings records.

        Raises:
            ConfigError: something that cannot be recorded, such as a checkpoint's unprintable name.
        """
        values = {name: getattr(self, name) for name in RECORDED} | {
            "encoder": self.name,
            "untagged_hd": UNTAGGED_HD,
            "interpolation": INTERPOLATION[resize],
            "fps": fps,
            "sampling": sampling,
            "max_frames": max_frames,
            "max_seconds": max_seconds,
            "batch_size": batch_size,
        }
        return build(CacheSpec, values, source=f"what is known of {self.name}")

    def _per_channel(self, values: tuple[float, float, float]) -> Tensor:
        scaled = torch.tensor(values, dtype=torch.float64).mul(255).float().to(self.device)
        return scaled.view(3, *[1] * (len(self.input_shape) - 1))

    def _check(self, pixels: Tensor) -> None:
        if pixels.dtype != torch.uint8 or tuple(pixels.shape[1:]) != self.input_shape:
            shape = ", ".join(map(str, ("batch", *self.input_shape)))
            raise EncoderError(
                f"{self.name} takes uint8 RGB frames of shape ({shape}), not {pixels.dtype} "
                f"{tuple(pixels.shape)}; resize them to {self.image_size} x {self.image_size} first"
            )
        if len(pixels) == 0:
            raise EncoderError(f"{self.name} was given no frames; give at least one")


class Encoding:
    """A batch that is being encoded, and copied to the CPU.

    Args:
        encoder: which one.
        vectors: float32 (batch, width), on its device.
        norms: float32 (batch, tokens), what the vectors were divided by.
    """

    def __init__(self, encoder: FrameEncoder, vectors: Tensor, norms: Tensor) -> None:
        self._encoder = encoder
        self._event: torch.cuda.Event | None = None
        self._vectors, self._norms = vectors, norms
        if vectors.is_cuda:
            # To pinned memory, so that the copies run asynchronously.
            self._vectors, self._norms = (
                torch.empty(each.shape, pin_memory=True).copy_(each, non_blocking=True)
                for each in (vectors, norms)
            )
            self._event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            self._event.record(torch.cuda.current_stream(vectors.device))

    def wait(self) -> None:
        """Wait until the batch is encoded, so that its pixels may be written to again."""
        if self._event is not None:
            with self._encoder.errors_of_device("a batch"):
                self._event.synchronize()

    def result(self) -> Tensor:
        """Wait for the vectors, float32 (batch, width) on the CPU, each of unit L2 norm.

        Raises:
            NoDirectionError: a feature is zero or not finite.
        """
        self.wait()
        bad = ~(self._norms.isfinite() & (self._norms > 0)).all(1)
        if bad.any():
            encoder = self._encoder
            raise NoDirectionError(
                f"{encoder.name} in {encoder.precision} made a feature that is zero or not finite "
                f"for {int(bad.sum())} of {len(bad)} {encoder.inputs}, the first at position "
                f"{int(bad.nonzero()[0])}; give --precision bfloat16 or float32, or other weights"
            )
        return self._vectors.clone()  # a tensor of inference mode could not be trained on


def choose_precision(name: str, device: torch.device, half: str = "bfloat16") -> str:
    """Return the precision called `name`; `half` is that of the weights, which a GPU's `auto` is.

    Raises:
        UnknownNameError: no such precision.
    """
    if name == "auto":
        name = "half" if device.type == "cuda" else "float32"
    if name == "half":
        return half
    if name not in PRECISIONS:
        raise unknown_name("precision", name, ("auto", "half", *PRECISIONS))
    return name
