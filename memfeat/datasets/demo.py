"""The demo datasets: rendered clips, scored by a formula.

A clip is a few seconds of slow camera movement over one or two *background* photographs, into
which up to three *moments*, striking photographs of fixed salience, are cut at random. Together
the moments last 0.6 or 0.8 seconds, however many they are and whatever their salience, so a single
one may last one frame. The score counts the moments, not their frames:

    score = noise-free score + normal noise, clipped to [0, 1]

The noise-free score of `demo` adds the moments up as independent chances to be remembered:

    base + gain * (1 - product over moments of (1 - salience))

`demo-b` has other clips and another formula: only the strongest moment counts, each cut of the
background costs something, and the mean is higher. A model carried over from one to the other
therefore ranks videos fairly and yet misses the scores:

    base + gain * (largest salience) - cut_penalty * (background shots - 1)

The noise is sized so that a perfect model reaches a rank correlation of about 0.9.

A clip's captions are made up from its script, and say so. They name the moments as well, so they
tell as much of the score as the frames do, and more directly.

Roles and saliences are made up, not measured: these are nobody's memories. All splits of both
datasets share the same photographs, so the demos show that the machinery works, and nothing about
people or about content not seen before.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from pydantic import Field

from memfeat.config import Settings, Split
from memfeat.errors import MemfeatError
from memfeat.manifest import CAPTIONS, VideoRecord

SALIENCE = {
    "coffee.png": 0.2,
    "flower.jpg": 0.3,
    "motorcycle_left.png": 0.4,
    "rocket.jpg": 0.5,
    "retina.jpg": 0.6,
    "chelsea.png": 0.7,
    "astronaut.png": 0.8,
}
BACKGROUNDS = (
    "brick.png",
    "camera.png",
    "cell.png",
    "china.jpg",
    "coins.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "moon.png",
    "page.png",
    "text.png",
)

WORDS = {
    "coffee.png": "a cup of coffee",
    "flower.jpg": "a flower",
    "motorcycle_left.png": "a motorcycle",
    "rocket.jpg": "a rocket",
    "retina.jpg": "a retina",
    "chelsea.png": "a cat",
    "astronaut.png": "an astronaut",
    "brick.png": "a wall of bricks",
    "camera.png": "a man with a camera",
    "cell.png": "a living cell",
    "china.jpg": "a temple",
    "coins.png": "coins",
    "grass.png": "grass",
    "gravel.png": "gravel",
    "hubble_deep_field.jpg": "galaxies",
    "ihc.png": "tissue under a microscope",
    "moon.png": "the surface of the moon",
    "page.png": "a printed page",
    "text.png": "lines of text",
}
MADE_UP = "made up: "  # what each caption begins with


class DemoSettings(Settings):
    """What a rendered dataset consists of; the same settings give the same scores and clips."""

    name: str = Field("demo", description="clips are called NAME-0000, NAME-0001, ...")
    dataset: str = "memfeat demo: rendered clips, scores from a formula, not from people"
    seed: int = 2022
    clips: dict[Split, int] = Field(default={"train": 240, "dev": 60, "test": 120})
    formula: Literal["sum", "peak"] = Field("sum", description="how moments count: see above")
    base: float = Field(0.5, description="score without any moment")
    gain: float = Field(0.4, description="what moments can add at most")
    cut_penalty: float = Field(0.0, description="what a cut to another background takes away")
    noise: float = Field(0.05, description="standard deviation of what the formula does not tell")
    max_moments: int = Field(3, description="each is there with probability 1/2")
    moment_frames: tuple[int, int] = Field((3, 4), description="of a clip's moments together")
    background_shots: tuple[int, int] = Field((1, 2), description="in a clip")
    frames: tuple[int, int] = Field((10, 14), description="in a clip")
    fps: int = 5
    width: int = 256
    height: int = 192

    @property
    def num_clips(self) -> int:
        """How many clips there are in all splits."""
        return sum(self.clips.values())


DEMO = DemoSettings()
DEMO_B = DemoSettings(
    name="demo-b",
    dataset="memfeat demo-b: rendered clips, scores from another formula, not from people",
    seed=2023,
    formula="peak",
    base=0.775,
    gain=0.2,
    cut_penalty=0.03,
    noise=0.025,
)
DEMOS = {settings.name: settings for settings in (DEMO, DEMO_B)}

# Bounds of x, y and zoom at a shot's first frame.
Bounds = tuple[tuple[float, float], tuple[float, float], tuple[float, float]]
_ANYWHERE: Bounds = ((0.0, 1.0), (0.0, 1.0), (0.5, 0.9))
_ON_SUBJECT: Bounds = ((0.3, 0.7), (0.3, 0.7), (0.8, 1.0))


class Shot(NamedTuple):
    """A camera moving evenly over a photograph.

    Attributes:
        photo: file name of the photograph.
        start: the clip's frame at which the shot begins.
        frames: how many frames it lasts.
        x: horizontal position of the window at its first and last frame, 0 left to 1 right.
        y: vertical position likewise, 0 top to 1 bottom.
        zoom: width of the window likewise, as a fraction of the widest that fits.
        brightness: factor on the pixel values.
    """

    photo: str
    start: int
    frames: int
    x: tuple[float, float]
    y: tuple[float, float]
    zoom: tuple[float, float]
    brightness: float


class Script(NamedTuple):
    """Everything about a clip before it is rendered. Moments are drawn over the backgrounds."""

    video_id: str
    split: Split
    frames: int
    backgrounds: tuple[Shot, ...]
    moments: tuple[Shot, ...]
    noise_free_score: float
    score: float

    @property
    def captions(self) -> list[str]:
        """What the clip shows: the photographs behind, and those that are cut in."""
        behind = ", then ".join(WORDS[shot.photo] for shot in self.backgrounds)
        struck = " and ".join(WORDS[shot.photo] for shot in self.moments)
        shown = [f"slow views of {behind}", *([f"{struck} for a moment"] if struck else [])]
        return [MADE_UP + caption for caption in shown]


def write_script(index: int, settings: DemoSettings = DEMO) -> Script:
    """Return the script of clip `index`, which follows from the index and the settings alone.

    Raises:
        MemfeatError: there are fewer clips.
    """
    generator = np.random.default_rng([settings.seed, index])
    frames = _between(generator, settings.frames)
    count = generator.binomial(settings.max_moments, 0.5)
    moments = [list(SALIENCE)[photo] for photo in generator.permutation(len(SALIENCE))[:count]]
    noise = settings.noise * generator.standard_normal()
    backgrounds = tuple(_backgrounds(generator, frames, settings))
    noise_free = _noise_free_score([SALIENCE[m] for m in moments], len(backgrounds), settings)
    return Script(
        video_id=f"{settings.name}-{index:04d}",
        split=_split_of(index, settings),
        frames=frames,
        backgrounds=backgrounds,
        moments=tuple(_moments(generator, frames, moments, settings)),
        noise_free_score=round(noise_free, 4),
        score=round(float(np.clip(noise_free + noise, 0, 1)), 4),
    )


def demo_records(videos_folder: Path, settings: DemoSettings = DEMO) -> tuple[VideoRecord, ...]:
    """Return the dataset's manifest records, without rendering anything."""
    scripts = (write_script(index, settings) for index in range(settings.num_clips))
    return tuple(
        VideoRecord(
            video_id=script.video_id,
            path=videos_folder.resolve() / f"{script.video_id}.mp4",
            score=script.score,
            split=script.split,
            dataset=settings.dataset,
            noise_free_score=script.noise_free_score,
            caption=CAPTIONS.join(script.captions),
        )
        for script in scripts
    )


def _noise_free_score(
    saliences: Sequence[float], background_shots: int, settings: DemoSettings
) -> float:
    if settings.formula == "sum":
        striking = 1 - math.prod(1 - salience for salience in saliences)
    else:
        striking = max(saliences, default=0.0)
    cuts = background_shots - 1
    return settings.base + settings.gain * striking - settings.cut_penalty * cuts


def _backgrounds(
    generator: np.random.Generator, frames: int, settings: DemoSettings
) -> Iterator[Shot]:
    """Cut the clip into shots of different photographs, none shorter than four frames."""
    count = _between(generator, settings.background_shots)
    spare = generator.integers(frames - 4 * count + 1, size=count - 1)
    cuts = [0, *(np.sort(spare) + 4 * np.arange(1, count)).tolist(), frames]
    photos = generator.permutation(len(BACKGROUNDS))[:count]
    for photo, start, end in zip(photos, cuts[:-1], cuts[1:], strict=True):
        yield _shot(generator, BACKGROUNDS[photo], start, end - start, _ANYWHERE)


def _moments(
    generator: np.random.Generator, frames: int, photos: Sequence[str], settings: DemoSettings
) -> Iterator[Shot]:
    """Divide the moments' time among them and place them without overlap."""
    total = _between(generator, settings.moment_frames) if photos else 0
    ends = np.sort(generator.permutation(np.arange(1, total))[: len(photos) - 1])
    lengths = np.diff(ends, prepend=0, append=total).tolist()
    gaps = np.sort(generator.integers(frames - total + 1, size=len(photos))).tolist()
    for number, photo in enumerate(photos):
        start = gaps[number] + sum(lengths[:number])
        yield _shot(generator, photo, start, lengths[number], _ON_SUBJECT)


def _shot(
    generator: np.random.Generator, photo: str, start: int, frames: int, camera: Bounds
) -> Shot:
    """Choose where the camera starts, within bounds on x, y and zoom, and how fast it moves."""
    first = generator.uniform(*np.transpose(camera))
    last = first + (frames - 1) * generator.uniform(-0.02, 0.02, size=3) * (2.5, 2.5, 0.5)
    x, y, zoom = zip(first.tolist(), last.clip((0, 0, 0.4), 1).tolist(), strict=True)
    return Shot(photo, start, frames, x, y, zoom, float(generator.uniform(0.8, 1.15)))


def _between(generator: np.random.Generator, bounds: tuple[int, int]) -> int:
    return int(generator.integers(bounds[0], bounds[1] + 1))


def _split_of(index: int, settings: DemoSettings) -> Split:
    for split, clips in settings.clips.items():
        if index < clips:
            return split
        index -= clips
    raise MemfeatError(f"{settings.name} has {settings.num_clips} clips, no more")
