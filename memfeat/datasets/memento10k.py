"""Memento10k as its authors hand it out: a JSON file for each split (Newman et al. 2020)."""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from memfeat.config import Split
from memfeat.datasets.folder import Folder, stem
from memfeat.datasets.formats import (
    FORMATS,
    Format,
    Labels,
    ListedVideo,
    json_records,
    label_files,
)
from memfeat.errors import ManifestError

FILES: Mapping[Split, tuple[str, ...]] = {
    "train": ("memento_train_data.json",),
    "dev": ("memento_val_data.json",),
    "test": ("memento_test_data.json",),
}
UNUSED = {"url", "alpha", "actions"}


@FORMATS.register("memento10k")
class Memento10k(Format):
    """A list of records, or an object of them by id; the test split's have no score."""

    about: ClassVar[str] = "memento_{train,val,test}_data.json"
    targets: ClassVar[Mapping[str, str]] = {"mem_score": "mem_score of the native release"}

    def read(self, folder: Folder, target: str) -> Labels:
        """Read the JSON files that are there; see `Format.read`."""
        files = label_files(folder, FILES)
        videos: list[ListedVideo] = []
        notes: list[str] = []
        for split, path in files.items():
            required = () if split == "test" else (target,)
            records = list(json_records(path, required))
            videos += _videos(records, split, target)
            odd = {key for *_, record in records for key in record}
            odd -= {"filename", "captions", target, *UNUSED}
            if odd:
                notes.append(f"{path.name} also has {', '.join(sorted(odd))}: not used")
        title = f"Memento10k, {self.targets[target]}"
        return Labels(title, tuple(files.values()), tuple(videos), tuple(notes))


def _videos(
    records: list[tuple[str, str, dict[str, Any]]], split: Split, target: str
) -> Iterator[ListedVideo]:
    for place, key, record in records:
        name = record.get("filename", key)
        if not isinstance(name, str) or not name.strip():
            raise ManifestError(
                f"{place}, key 'filename': {name!r} is not a file's name; keys found: "
                f"{', '.join(record)}"
            )
        url = record.get("url")
        yield ListedVideo(
            place=place,
            video_id=stem(name),
            names=(name, url) if isinstance(url, str) and stem(url) else (name,),
            split=split,
            score=record.get(target),
            caption=_joined(record.get("captions")),
            columns=(("video_id", "filename"), ("score", target)),
        )


def _joined(captions: Any) -> str:
    sentences = captions if isinstance(captions, list) else [captions or ""]
    return " | ".join(str(sentence).strip() for sentence in sentences)
