"""The texts of videos to score: given as they are, as a file, or for many by id."""

from collections.abc import Sequence
from pathlib import Path

from memfeat.errors import ConfigError
from memfeat.extraction.texts import SUFFIXES, TABLE, Part, Texts, parse_text, read_text
from memfeat.prediction.inputs import Input


def texts_of(videos: Sequence[Input], sources: Sequence[str]) -> tuple[Input, ...]:
    """Give videos the texts of `sources`; see `VideoPredictor.with_texts`."""
    many = [source for source in sources if TABLE.fullmatch(source) or Path(source).is_dir()]
    own = [source for source in sources if source not in many]
    if own and len(videos) > 1:
        raise ConfigError(
            f"--text {own[0]!r} is the text of one video, and there are {len(videos)}; name a "
            "table with their ids, such as captions.csv, or a folder of files such as ID.txt"
        )
    parts = [_part(source) for source in own]
    texts = Texts.open(many, [video.video_id for video in videos])
    return tuple(video._replace(parts=(*parts, *texts.parts(video.video_id))) for video in videos)


def _part(source: str) -> Part:
    path = Path(source)
    named = path.suffix.lower() in SUFFIXES and "\n" not in source
    return read_text(path) if named else parse_text(source)
