"""Settings of prediction: with which runs, of what, and where the results go."""

from pathlib import Path

from pydantic import Field

from memfeat.config.settings import LocalPath, Settings
from memfeat.storage import AnyLocation, Location

IMAGES = "rates each frame as an image, by people's memory for images; the score is the mean"
READY = {  # scorers that take the place of a run: what to say with their scores, by a stable code
    "resmem": {
        "images": IMAGES,
        "non_commercial": "ResMem may be used for non-commercial purposes only: see the licence of "
        "the University of Chicago in its package",
    },
    "vitmem": {"images": IMAGES},
}


def is_ready(run: AnyLocation) -> bool:
    """Whether that is the name of a ready scorer, and not of a folder that is there."""
    return str(run) in READY and not Path(str(run)).exists()


class ScoringConfig(Settings):
    """How new videos are scored."""

    run: tuple[Location, ...] = Field((), description="another run, averaged with RUN")
    weights: tuple[str, ...] = Field(
        (),
        description="checkpoint of the encoder, if the run was made with a file; of several, in "
        "their order",
    )
    text: tuple[str, ...] = Field(
        (),
        description="for a run trained on texts, too: a video's text, or its file (.txt, .srt, "
        ".vtt); of several videos FILE.csv[:COLUMN,...] with ids, or a folder of ID.txt",
    )
    allow_images: bool = Field(False, description="take an image as a video of one frame")
    device: str = Field("auto", description="auto, cpu or cuda:N")


class PredictConfig(ScoringConfig):
    """What is scored in place of videos, and what is written besides the scores."""

    cache: tuple[Location, ...] = Field(
        (),
        description="score the videos of a cache, without decoding; of several streams one each",
    )
    retry_failed: bool = Field(
        False, description="with --output: try videos again that failed before"
    )
    effects: LocalPath | None = Field(
        None,
        description="write a row a frame, .csv, .tsv or .jsonl: its time, effect and weight",
    )
    timeline: LocalPath | None = Field(
        None,
        description="draw each frame's effect and weight: name a picture, or a folder for several",
    )


class CompareConfig(ScoringConfig):
    """What is drawn of a comparison."""

    picture: LocalPath | None = Field(
        None, description="draw the videos' frames, and what each does to the score"
    )
    html: LocalPath | None = Field(
        None, description="write a page with the scores, and with what the picture shows"
    )


class ServeConfig(ScoringConfig):
    """Where a server listens, and what it takes."""

    host: str = Field("127.0.0.1", description="address to listen at; 0.0.0.0 for all of them")
    port: int = Field(8765, ge=0, lt=65536, description="0 for any that is free")
    most_megabytes: int = Field(2048, gt=0, description="of a video")
    most_waiting: int = Field(32, gt=0, description="videos that are sent, wait or are scored")
    most_kept: int = Field(200, gt=0, description="results in memory; older ones are forgotten")
    most_minutes: float = Field(60.0, gt=0, description="to send a video, and to score it")

    @property
    def most_bytes(self) -> int:
        """The largest video taken, in bytes."""
        return self.most_megabytes * 1_000_000
