"""What made a cache, so that caches of different making are never mixed up."""

from typing import Literal

from memfeat.config import Settings
from memfeat.errors import CacheError

SCHEMA_VERSION: Literal[1] = 1


class CacheSpec(Settings):
    """What made the embeddings. Two caches may be mixed or swapped only if their specs are equal.

    `mean` and `std` are for pixels in [0, 1]. `trained_on` says in words where the weights come
    from, so that no table made with random weights can pass for another.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    encoder: str
    weights: str
    weights_sha256: str
    trained_on: str
    activation: str
    dim: int
    image_size: int
    interpolation: str = "antialiased bicubic, squashed"
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    sampling: str = "every frame"
    max_frames: int | None = None
    precision: str
    batch_size: int
    normalisation: str = "l2"
    dtype: str = "float16"

    @property
    def is_random(self) -> bool:
        """Whether the encoder's weights were never trained."""
        return self.weights == "random"

    def describe(self) -> str:
        """Name encoder and weights in one line, for tables and pictures."""
        if self.is_random:
            return f"{self.encoder} with RANDOM WEIGHTS: its features carry no learned content"
        return f"{self.encoder}, {self.weights} weights ({self.trained_on}), {self.dim}-d"

    def require(self, other: "CacheSpec", message: str) -> None:
        """Refuse `other` unless it equals this spec.

        Raises:
            CacheError: `message`, then every field that differs with both values.
        """
        differences = [
            f"{name} is {getattr(other, name)!r}, not {getattr(self, name)!r}"
            for name in type(self).model_fields
            if getattr(self, name) != getattr(other, name)
        ]
        if differences:
            raise CacheError(f"{message}: {'; '.join(differences)}")
