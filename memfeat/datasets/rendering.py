"""Rendering the demo's clips from photographs that scikit-image and scikit-learn ship."""

import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from memfeat.datasets.demo import (
    BACKGROUNDS,
    DEMO,
    SALIENCE,
    DemoSettings,
    Script,
    Shot,
    demo_records,
    write_script,
)
from memfeat.errors import MemfeatError
from memfeat.manifest import Manifest, write_manifest
from memfeat.storage import remove_stale_parts
from memfeat.video import write_video

_FOLDERS = {
    "china.jpg": ("sklearn", "datasets/images"),
    "flower.jpg": ("sklearn", "datasets/images"),
}


def render_demo(
    manifest_path: Path,
    videos_folder: Path,
    *,
    settings: DemoSettings = DEMO,
    on_clip: Callable[[str], None] | None = None,
) -> Manifest:
    """Render the clips that are missing, and write the manifest if it differs.

    An existing clip is complete, and kept: after changing settings, use another folder. `on_clip`
    is called with each clip's id once it exists, rendered or kept.

    Raises:
        MemfeatError: the photographs are not installed.
        OSError: a file cannot be written.
    """
    records = demo_records(videos_folder, settings)
    clips = [videos_folder / f"{record.video_id}.mp4" for record in records]
    remove_stale_parts(videos_folder)
    photos = {} if all(clip.exists() for clip in clips) else load_photos()

    def render(index: int) -> str:
        if not clips[index].exists():
            frames = render_frames(write_script(index, settings), photos, settings)
            write_video(clips[index], frames, fps=settings.fps)
        return records[index].video_id

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for video_id in pool.map(render, range(len(records))):
            if on_clip:
                on_clip(video_id)
    write_manifest(manifest_path, records)
    return Manifest(manifest_path, records)


def load_photos() -> dict[str, Image.Image]:
    """Load the photographs, by file name.

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
    """Return what the shot's camera sees at one of the clip's frames."""
    progress = (frame - shot.start) / max(shot.frames - 1, 1)
    x, y, zoom = (first + (last - first) * progress for first, last in (shot.x, shot.y, shot.zoom))
    scale = zoom * min(photo.width / size[0], photo.height / size[1])
    width, height = size[0] * scale, size[1] * scale
    left, top = x * (photo.width - width), y * (photo.height - height)
    window = (left, top, left + width, top + height)
    view = photo.resize(size, Image.Resampling.BICUBIC, box=window).convert("RGB")
    return np.asarray(ImageEnhance.Brightness(view).enhance(shot.brightness))
