"""`memfeat cache compare`: how features of the same videos differ, and why."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from memfeat.cli.options import LOCATION, json_option, print_json, say, settings_options, some
from memfeat.config import CacheCompareConfig
from memfeat.storage import Location

if TYPE_CHECKING:
    from memfeat.cache import FeatureDifference
    from memfeat.extraction import Explanation

SHOWN = 10  # videos


@click.command(
    "compare",
    epilog="Example: memfeat cache compare cache/mine/ViT-B-32 published.npz --manifest "
    "data_manifests/mine.csv",
)
@click.argument("one", type=LOCATION, metavar="A")
@click.argument("two", type=LOCATION, metavar="B")
@settings_options(CacheCompareConfig)
@json_option
def compare_command(
    one: Location, two: Location, config: CacheCompareConfig, as_json: bool
) -> None:
    """Say how features of the same videos differ, and with --manifest also why.

    One of A and B is a cache; the other may be one too, or features made elsewhere, in any form
    that `memfeat cache import` takes. For each video: numbers of rows, the mean cosine row by row,
    and the shift in time at which they fit better. With --manifest a few frames of a few videos are
    encoded again with one detail changed at a time: activation, projection, crop, interpolation,
    order of channels, mean and std, precision; which rows belong together is found without that.
    The detail that explains the difference is named. Nothing is written.
    """
    from memfeat.cache import compare_features, open_both
    from memfeat.cli.progress import progress_line
    from memfeat.manifest import read_manifest

    manifest = read_manifest(config.manifest, config.root) if config.manifest else None
    ours, other = open_both(one, two)
    with progress_line("videos", 0) as progress:
        found = compare_features(ours, other, on_start=progress.restart, on_video=progress.advance)
    explanation = None
    if manifest:
        from memfeat.extraction.explaining import explain

        with progress_line("details", None) as progress:
            explanation = explain(ours, other, found, manifest, config, on_attempt=progress.advance)
    if as_json:
        print_json(_as_dict(found, explanation))
        return
    for line in _lines(found):
        click.echo(line)
    if explanation:
        for line in _reasons(explanation):
            click.echo(line)
    elif found.distance is None or found.distance > 0:
        say("give --manifest to find out why they differ")


def _as_dict(found: "FeatureDifference", explanation: "Explanation | None") -> dict[str, Any]:
    figures = asdict(found)
    figures["alignment"] = found.alignment._asdict() | {"words": str(found.alignment)}
    return figures | {"explanation": explanation.as_dict() if explanation else None}


def _lines(found: "FeatureDifference") -> Iterator[str]:
    yield f"ours:  {found.ours} ({found.dim}-d)"
    yield f"other: {found.other} ({found.other_dim}-d)"
    yield f"videos in both: {len(found.videos)}"
    for ids, where in ((found.only_ours, "ours"), (found.only_other, "the other")):
        if ids:
            yield f"only in {where}: {some(ids)}"
    for name, (own, other) in (found.settings or {}).items():
        yield f"recorded: {name} is {own!r} in ours, {other!r} in the other"
    yield f"{'video':<24} {'rows':>6} {'other':>6} {'cosine':>9} {'lowest':>9} {'shift':>6}"
    worst = sorted(found.videos, key=lambda each: (each.cosine or 0, each.video_id))
    for each in worst[:SHOWN]:
        numbers = f"{each.video_id:<24} {each.frames:>6} {each.other_frames:>6}"
        if each.cosine is None or each.lowest_cosine is None:
            yield f"{numbers} {'-':>9} {'-':>9} {'-':>6}"
        else:
            yield f"{numbers} {each.cosine:>9.6f} {each.lowest_cosine:>9.6f} {each.shift:>6}"
    if len(worst) > SHOWN:
        yield f"... and {len(worst) - SHOWN} more, which are nearer"
    if found.distance is not None and found.aligned_distance is not None:
        yield f"mean cosine: {1 - found.distance:.6f} row by row"
        if found.aligned_distance != found.distance:
            yield f"             {1 - found.aligned_distance:.6f} of {found.alignment}"
        if found.mean_distance is not None:
            yield f"             {1 - found.mean_distance:.6f} with the mean of ours"


def _reasons(explanation: "Explanation") -> Iterator[str]:
    if explanation.repeated is not None and explanation.repeated > 1e-4:
        yield (
            f"note: ours, encoded again, differs from itself by 1 - cosine of "
            f"{explanation.repeated:.2g}: the videos may be others, or decoded otherwise"
        )
    for each in explanation.tried:
        yield f"  {each.distance:<9.2g} {each.cause}, {each.detail}"
    yield explanation.words()
