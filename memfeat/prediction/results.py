"""The prediction for one video: score, how far to trust it, attention weights, and its picture."""

from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from memfeat.cache import Status
from memfeat.errors import RemoteError, VideoError
from memfeat.prediction.effects import FrameEffects
from memfeat.storage import Location

ABOUT_WEIGHTS = (
    "a weight is the model's own number for a frame, which may be negative, and they sum to "
    "anything; what a frame does to the score is its effect"
)


@dataclass(frozen=True, eq=False, kw_only=True)
class VideoPrediction:
    """The score of one video, and how far to trust it.

    It keeps the video's embeddings, so that its effects can be found without decoding it again.

    Examples:
        >>> import memfeat
        >>> prediction = memfeat.load("runs/mine").predict("clip.mp4")
        >>> prediction.effects.shape == prediction.pts_seconds.shape
        True

    Attributes:
        path: the video's path or URL; None if it was scored from a cache.
        video_id: its id in the cache or manifest, or else its file's stem.
        score: memorability in (0, 1), the mean over the run's seeds, or over runs; None if the
            video failed.
        score_std: standard deviation over seeds, or over runs (n - 1); None with one.
        interval: where the true score lies with a probability of 90 %, within [0, 1], if the video
            is like those of the dev split; None with too few of those.
        percentile: which share of the scores that the run learned from is lower, in per cent.
        familiarity: which share of familiar videos differs more from what the run was trained on:
            1 for the most typical, 0 beyond all of them. None if an early version trained the run.
        cautions: a line for each reason not to trust the score, by a stable code: `unfamiliar`,
            `extreme`, `length`, `frame_rate`, `shape`, `no_text`; of a ready scorer `images` and
            `non_commercial`.
        run_scores: of several runs, each one's score, by its folder; empty for one run.
        num_frames: frames decoded and scored, with those that a kept frame stands for. With several
            streams, this, `weights` and `pts_seconds` are those of the first.
        duration_seconds: from the first frame's appearance to the last one's end.
        status: `ok`; `partial` for a damaged video, scored on what could be decoded; or `failed`.
        reason: stable code of why it is not ok; empty otherwise.
        message: the same in words.
        weights: float64 (time,), each kept frame's weight, the mean over seeds and over the frames
            that it stands for; None if the aggregator gives none, or several runs were averaged.
            They may be negative, and need not sum to 1.
        pts_seconds: float64 (time,), when each kept frame appears.
        sources: lines that name encoders, weights and training scores; show them with the score.
    """

    path: Location | None
    video_id: str
    score: float | None = None
    score_std: float | None = None
    interval: tuple[float, float] | None = None
    percentile: float | None = None
    familiarity: float | None = None
    cautions: Mapping[str, str] = field(default_factory=dict)
    run_scores: Mapping[str, float] = field(default_factory=dict)
    num_frames: int = 0
    duration_seconds: float = 0.0
    status: Status
    reason: str = ""
    message: str = ""
    weights: NDArray[np.float64] | None = field(default=None, repr=False)
    pts_seconds: NDArray[np.float64] = field(default_factory=lambda: np.empty(0), repr=False)
    sources: tuple[str, ...] = field(repr=False)
    find_effects: Callable[[], FrameEffects] | None = field(default=None, repr=False, compare=False)

    @property
    def name(self) -> str:
        """The path or URL, or else the id."""
        return self.video_id if self.path is None else str(self.path)

    @cached_property
    def timeline(self) -> FrameEffects:
        """What each frame does to the score; found on first use, without decoding again.

        Raises:
            VideoError: the video failed.
        """
        if self.find_effects is None:
            raise VideoError(self.reason, self.message)
        return self.find_effects()

    @property
    def effects(self) -> NDArray[np.float64] | None:
        """The score minus the score without each frame, float64 (time,); found on first use.

        None where that is undefined, as for a single frame; `timeline` says why.
        """
        return None if self.score is None else self.timeline.effect

    @property
    def ratings(self) -> NDArray[np.float64] | None:
        """Each frame's own score, float64 (time,), of a ready scorer; None of a trained run."""
        return None if self.score is None else self.timeline.ratings

    def lines(self) -> list[str]:
        """Return what there is to say beside the score: its interval and rank, then cautions."""
        known = []
        if self.interval is not None:
            known.append("90 % interval {:.3f} to {:.3f}".format(*self.interval))
        if self.percentile is not None:
            known.append(f"above {self.percentile:.0f} % of the scores learned from")
        if self.familiarity is not None:
            known.append(f"familiarity {self.familiarity:.2f}")
        cautions = [f"{code}: {text}" for code, text in self.cautions.items()]
        return [line for line in ("; ".join(known), *cautions) if line]

    def as_dict(self) -> dict[str, Any]:
        """Return everything, the effects too, ready for JSON; arrays become lists."""
        arrays = {"weights": self.weights, "pts_seconds": self.pts_seconds, "effects": self.effects}
        arrays |= {} if self.ratings is None else {"ratings": self.ratings}
        listed = {name: None if own is None else own.tolist() for name, own in arrays.items()}
        undefined = None if self.score is None else self.timeline.effect_undefined
        return {
            "path": None if self.path is None else str(self.path),
            "video_id": self.video_id,
            "score": self.score,
            "score_std": self.score_std,
            "interval": None if self.interval is None else list(self.interval),
            "percentile": self.percentile,
            "familiarity": self.familiarity,
            "cautions": dict(self.cautions),
            "run_scores": dict(self.run_scores),
            "num_frames": self.num_frames,
            "duration_seconds": self.duration_seconds,
            "status": self.status,
            "reason": self.reason,
            "message": self.message,
            **listed,
            "effects_undefined": undefined,
            "about_weights": ABOUT_WEIGHTS,
            "sources": list(self.sources),
        }

    def heading(self, name: str | None = None) -> str:
        """Return the video's name [its file's], fit for a heading, and whether it is whole."""
        if name is None:
            name = self.video_id if self.path is None else self.path.name
        short = name if len(name) <= 60 else f"{name[:30]}…{name[-29:]}"
        return short if self.status == "ok" else f"{short} ({self.status})"

    def thumbnails(self) -> dict[int, NDArray[np.uint8]]:
        """Decode the frames to show beneath the timeline: uint8 (height, width, 3) RGB by index.

        There are none of a cached video, nor of a folder of frames, whose rate is not known here.

        Raises:
            VideoError: the video failed, or cannot be decoded again.
        """
        from memfeat.prediction.clip import frames_at  # noqa: PLC0415
        from memfeat.prediction.strip import strip_indices  # noqa: PLC0415

        if self.path is None or (isinstance(self.path, Path) and self.path.is_dir()):
            return {}
        found = self.timeline
        times = {index: float(found.pts_seconds[index]) for index in strip_indices(found)}
        pixels = frames_at(self.path, times.values())
        return {index: pixels[time] for index, time in times.items()}

    def draw(self, output: str | Path | BinaryIO, *, title: str | None = None) -> None:
        """Draw the timeline with thumbnails, and what there is to say about the score.

        Args:
            output: a .png, .svg or .pdf file, or a stream for a PNG.
            title: what the video is called [its file's name].

        Raises:
            VideoError: the video failed, or cannot be decoded again.
            ConfigError: the output's name ends in none of .png, .svg and .pdf.
            OSError: the output cannot be written.
        """
        from memfeat.prediction.timeline import draw_timeline  # noqa: PLC0415

        found = self.timeline
        said = [f"{self.status}: {self.message}"] if self.message else []
        said += self.lines()
        if found.weights is not None:
            said.append(f"weights: {ABOUT_WEIGHTS}")
        draw_timeline(
            found,
            self.thumbnails(),
            Path(output) if isinstance(output, str) else output,
            title=self.heading(title),
            sources=[*said, *found.sources],
        )

    def _repr_html_(self) -> str:
        """Show score, interval and timeline in a notebook."""
        title = f"<b>{escape(self.name)}</b>"
        if self.score is None:
            return f"<p>{title}: {escape(self.message)}</p>"
        said = [line for line in (self.message, *self.lines()) if line]
        lines = "<br>".join(
            [f"{title}: predicted score <b>{self.score:.3f}</b>", *map(escape, said)]
        )
        return f"<p>{lines}</p>{self._picture()}"

    def _picture(self) -> str:
        """Return the timeline as an element of a page; nothing if the video is gone."""
        picture = BytesIO()
        try:
            self.draw(picture)
        except (VideoError, RemoteError):
            return ""
        data = b64encode(picture.getvalue()).decode()
        alt, style = "the effect of each frame on the score", "max-width: 100%"
        return f'<img alt="{alt}" style="{style}" src="data:image/png;base64,{data}">'
