"""The embedded demo: clips rendered from packaged photographs, scored by a formula.

A clip cuts between *background* shots, into which up to three *moments*, striking photographs of
fixed salience, are cut at random places. Together they last a quarter to half a second, however
many they are and whatever their salience, so a single one may last one frame. The score counts
the moments, not their frames:

    noise-free score = base + gain * (1 - product over moments of (1 - salience))
    score            = noise-free score + normal noise, clipped to [0, 1]

The noise is as large as leaves a perfect model a rank correlation of about 0.9.

Roles and saliences are decreed, not measured: the scores are nobody's memory. All splits share
the photographs, so the demo shows that the machinery works, and nothing about people or about
content not seen before.
"""

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance
from pydantic import Field

from memfeat.config import Settings, Split
from memfeat.errors import MemfeatError
from memfeat.files import remove_stale_parts
from memfeat.manifest import Manifest, VideoRecord, write_manifest
from memfeat.video import write_video

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
_FOLDERS = {
    "china.jpg": ("sklearn", "datasets/images"),
    "flower.jpg": ("sklearn", "datasets/images"),
}


class DemoSettings(Settings):
    """What a rendered dataset consists of; the same settings give the same scores and clips."""

    name: str = Field("demo", description="clips are called NAME-000, NAME-001, ...")
    dataset: str = "memfeat demo: rendered clips, scores from a formula, not from people"
    seed: int = 2022
    clips: dict[Split, int] = Field(default={"train": 96, "dev": 24, "test": 40})
    base: float = Field(0.5, description="score without any moment")
    gain: float = Field(0.4, description="what moments can add at most")
    noise: float = Field(0.05, description="standard deviation of what the formula does not tell")
    max_moments: int = Field(3, description="each is there with probability 1/2")
    moment_frames: tuple[int, int] = Field((3, 6), description="of a clip's moments together")
    background_shots: tuple[int, int] = Field((2, 4), description="in a clip")
    frames: tuple[int, int] = Field((24, 36), description="in a clip")
    fps: int = 12
    width: int = 256
    height: int = 192

    @property
    def num_clips(self) -> int:
        """How many clips there are in all splits."""
        return sum(self.clips.values())


DEMO = DemoSettings()


Bounds = tuple[tuple[float, float], tuple[float, float], tuple[float, float]]  # of x, y, zoom
_ANYWHERE: Bounds = ((0.0, 1.0), (0.0, 1.0), (0.5, 0.9))
_ON_SUBJECT: Bounds = ((0.3, 0.7), (0.3, 0.7), (0.8, 1.0))


@dataclass(frozen=True)
class Shot:
    """A camera moving evenly over a photograph.

    Attributes:
        photo: file name of the photograph.
        start: the clip's frame at which the shot begins.
        frames: how many it lasts.
        x: horizontal place of the window at its first and last frame, 0 left to 1 right.
        y: vertical place likewise, 0 top to 1 bottom.
        zoom: width of the window likewise, as a share of the widest that fits.
        brightness: factor on the pixel values.
    """

    photo: str
    start: int
    frames: int
    x: tuple[float, float]
    y: tuple[float, float]
    zoom: tuple[float, float]
    brightness: float


@dataclass(frozen=True)
class Script:
    """Everything about a clip before it is rendered; a moment covers the background it cuts."""

    video_id: str
    split: Split
    frames: int
    backgrounds: tuple[Shot, ...]
    moments: tuple[Shot, ...]
    noise_free_score: float
    score: float


def write_script(index: int, settings: DemoSettings = DEMO) -> Script:
    """Return the script of clip `index`, counted from 0: a function of it and the settings."""
    generator = np.random.default_rng([settings.seed, index])
    frames = _between(generator, settings.frames)
    count = generator.binomial(settings.max_moments, 0.5)
    moments = [list(SALIENCE)[photo] for photo in generator.permutation(len(SALIENCE))[:count]]
    missed = math.prod(1 - SALIENCE[photo] for photo in moments)
    noise_free = settings.base + settings.gain * (1 - missed)
    score = np.clip(noise_free + settings.noise * generator.standard_normal(), 0, 1)
    return Script(
        video_id=f"{settings.name}-{index:03d}",
        split=_split_of(index, settings),
        frames=frames,
        backgrounds=tuple(_backgrounds(generator, frames, settings)),
        moments=tuple(_moments(generator, frames, moments, settings)),
        noise_free_score=round(noise_free, 4),
        score=round(float(score), 4),
    )


def demo_records(videos_folder: Path, settings: DemoSettings = DEMO) -> tuple[VideoRecord, ...]:
    """Return the dataset's records, without rendering anything."""
    scripts = (write_script(index, settings) for index in range(settings.num_clips))
    return tuple(
        VideoRecord(
            video_id=script.video_id,
            path=videos_folder.resolve() / f"{script.video_id}.mp4",
            score=script.score,
            split=script.split,
            dataset=settings.dataset,
            noise_free_score=script.noise_free_score,
        )
        for script in scripts
    )


def render_demo(
    manifest_path: Path,
    videos_folder: Path,
    *,
    settings: DemoSettings = DEMO,
    on_clip: Callable[[str], None] | None = None,
) -> Manifest:
    """Render the clips that are not there yet, and write the manifest where it differs.

    A clip that is there is complete, and kept: after changing settings, use another folder.

    Args:
        manifest_path: the manifest to write.
        videos_folder: where `<video_id>.mp4` go.
        settings: the dataset; by default the demo.
        on_clip: called with each clip's id once it is there, rendered or kept.

    Raises:
        MemfeatError: the photographs are not installed.
        OSError: a file cannot be written.
    """
    records = demo_records(videos_folder, settings)
    remove_stale_parts(videos_folder)
    whole = all(record.path.exists() for record in records)
    photos = {} if whole else load_photos()

    def render(index: int) -> str:
        record = records[index]
        if not record.path.exists():
            frames = render_frames(write_script(index, settings), photos, settings)
            write_video(record.path, frames, fps=settings.fps)
        return record.video_id

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for video_id in pool.map(render, range(len(records))):
            if on_clip:
                on_clip(video_id)
    write_manifest(manifest_path, records)
    return Manifest(manifest_path, records)


def load_photos() -> dict[str, Image.Image]:
    """Load the photographs that scikit-image and scikit-learn bring, by file name.

    Raises:
        MemfeatError: scikit-image is not installed, or a release without these photographs is.
    """
    photos: dict[str, Image.Image] = {}
    for name in (*SALIENCE, *BACKGROUNDS):
        package, folder = _FOLDERS.get(name, ("skimage", "data"))
        try:
            with (resources.files(package) / folder / name).open("rb") as file:
                photo = Image.open(file)
                photo.load()
                photo.thumbnail((640, 640))
        except (ModuleNotFoundError, FileNotFoundError) as error:
            raise MemfeatError(
                f"the demo's photograph {name!r} is not installed ({error}); "
                "run: pip install 'memfeat[demo]'"
            ) from error
        photos[name] = photo
    return photos


def render_frames(
    script: Script, photos: Mapping[str, Image.Image], settings: DemoSettings = DEMO
) -> Iterator[NDArray[np.uint8]]:
    """Yield a clip's frames, each uint8 (height, width, 3) RGB."""
    shots = [*script.backgrounds, *script.moments]
    for frame in range(script.frames):
        shot = [shot for shot in shots if 0 <= frame - shot.start < shot.frames][-1]
        yield _photograph(shot, frame, photos[shot.photo], (settings.width, settings.height))


def _photograph(
    shot: Shot, frame: int, photo: Image.Image, size: tuple[int, int]
) -> NDArray[np.uint8]:
    """Take the picture that the shot's camera sees at one of the clip's frames."""
    progress = (frame - shot.start) / max(shot.frames - 1, 1)
    x, y, zoom = (first + (last - first) * progress for first, last in (shot.x, shot.y, shot.zoom))
    scale = zoom * min(photo.width / size[0], photo.height / size[1])
    width, height = size[0] * scale, size[1] * scale
    left, top = x * (photo.width - width), y * (photo.height - height)
    window = (left, top, left + width, top + height)
    view = photo.resize(size, Image.Resampling.BICUBIC, box=window).convert("RGB")
    return np.asarray(ImageEnhance.Brightness(view).enhance(shot.brightness))


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
    """Share the moments' time out and place them, none overlapping."""
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
