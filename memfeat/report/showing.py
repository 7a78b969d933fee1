"""Which videos a page shows: galleries, pictures and timelines, and how systems compare on them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from memfeat.report.exploring import Exploration, System, differences_of
from memfeat.report.scatter import scatter
from memfeat.report.videos import (
    MOST_IN_PAGE,
    MOST_PICTURES,
    Frame,
    GalleryVideo,
    extremes,
    first_shown,
    frames_of,
    gallery,
    known_records,
)
from memfeat.runs import Run
from memfeat.storage import Location

MOST_TIMELINES = 120  # in a page

# Draws the timelines of a run's videos, by id; `memfeat.prediction.timelines_of` is one.
Timelines = Callable[[Run, Sequence[str], str], tuple[Mapping[str, str], str]]


@dataclass(frozen=True)
class Gallery:
    """The worst predictions of one model on one split, and its best ones.

    Attributes:
        words: which they are, to follow "The videos" and precede "is most wrong about".
        worst, best: the largest error first, and the smallest.
        note: why they cannot be shown, or empty.
        heading: empty where there is one gallery alone.
    """

    words: str
    worst: tuple[GalleryVideo, ...]
    best: tuple[GalleryVideo, ...]
    note: str
    heading: str = ""


@dataclass(frozen=True)
class Shown:
    """A system of whose videos some are shown: `count` of its worst and best in a gallery."""

    system: System
    count: int
    manifest: Location
    words: str = ""
    heading: str = ""


def explored(
    systems: Sequence[System],
    drawn: Sequence[int],
    shown: Sequence[Shown],
    timelines: Timelines | None,
    bootstrap: int | None = None,
) -> dict[str, Any]:
    """Return what a page shows of single videos; `bootstrap` is for systems to be compared."""
    frames: dict[str, dict[str, Frame]] = {}
    galleries = []
    manifests = {each.manifest: known_records(each.manifest) for each in shown}
    sets = list(dict.fromkeys(each.system.videos for each in shown))
    for name in sets:
        own = [each for each in shown if each.system.videos == name]
        records, _ = manifests[own[0].manifest]
        in_gallery = [
            each.system.predictions.video_id[index]
            for each in own
            for indices in extremes(each.system.predictions, each.count)
            for index in indices
        ]
        most = min(MOST_PICTURES, MOST_IN_PAGE // len(sets))
        wanted = first_shown(own[0].system.predictions, in_gallery, most)
        frames[name] = frames_of(records, wanted, in_gallery)
    for each in shown:
        if not each.count or not each.system.predictions.video_id:
            continue
        records, note = manifests[each.manifest]
        worst, best = (
            gallery(each.system.predictions, indices, records, frames[each.system.videos])
            for indices in extremes(each.system.predictions, each.count)
        )
        galleries.append(Gallery(each.words, worst, best, note, each.heading))
    found, notes = _timelines(systems, drawn, timelines)
    count, differences = (0, {}) if bootstrap is None else differences_of(systems, bootstrap)
    return {
        "scatters": tuple(
            scatter(own.name, place, own.predictions.score, own.predictions.prediction)
            for place in drawn
            for own in (systems[place],)
        ),
        "galleries": tuple(galleries),
        "exploration": Exploration(tuple(systems), frames, found, count, differences),
        "explained": tuple(notes),
    }


def _timelines(
    systems: Sequence[System], drawn: Sequence[int], timelines: Timelines | None
) -> tuple[dict[tuple[int, str], str], list[str]]:
    """Draw timelines of videos by one drawn system of each set; say whose they are, or why not."""
    found: dict[tuple[int, str], str] = {}
    notes: list[str] = []
    if timelines is None:
        return found, notes
    chosen: dict[str, int] = {}
    for place in drawn:
        run = systems[place].run
        if run is not None and not run.config.folds:  # whose models have seen most of the videos
            chosen.setdefault(systems[place].videos, place)
    for place in chosen.values():
        system = systems[place]
        worst, best = extremes(system.predictions)
        first = [system.predictions.video_id[index] for index in (*worst, *best)]
        ids = first_shown(system.predictions, first, MOST_TIMELINES // len(chosen))
        run = system.run
        if run is None:
            continue
        drawings, problem = timelines(run, ids, f"timeline {place}")
        found |= {(place, name): svg for name, svg in drawings.items()}
        told = f"{len(drawings)} of {len(system.predictions.video_id)} by {system.name}"
        notes.append(f"{told}{f' ({problem})' if problem else ''}")
    return found, notes
