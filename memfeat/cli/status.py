"""`memfeat status`: what became of a cache's videos, and the commands that deal with the rest."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from memfeat.cli.options import json_option, print_json
from memfeat.errors import ExitCode

if TYPE_CHECKING:
    from memfeat.cache import CacheStatus

FEW = 3  # examples


@click.command(
    "status",
    epilog="Example: memfeat status cache/demo/efficientnet-lite0 --manifest "
    "data_manifests/demo.csv",
)
@click.argument("folder", type=click.Path(path_type=Path), metavar="CACHE")
@click.option(
    "--manifest", type=click.Path(path_type=Path), help="Also count its videos that are not done."
)
@json_option
def status_command(folder: Path, manifest: Path | None, as_json: bool) -> int:
    """Say how many videos of a cache are ok, partial and failed, and what to do about it.

    Exit code 1: shards are damaged; 3: some videos failed.
    """
    from memfeat.cache import status_of
    from memfeat.manifest import read_manifest

    records = read_manifest(manifest).by_id if manifest else {}
    status = status_of(folder, list(records))
    splits = {video_id: record.split for video_id, record in records.items()}
    if as_json:
        print_json({"folder": str(folder), **status.as_dict()})
    else:
        for line in _lines(status, folder, manifest, splits):
            click.echo(line)
    if status.damaged:
        return ExitCode.ERROR
    return ExitCode.SOME_VIDEOS_FAILED if "failed" in status.reasons else ExitCode.DONE


def _lines(
    status: "CacheStatus", folder: Path, manifest: Path | None, splits: Mapping[str, str]
) -> Iterator[str]:
    again = f"memfeat extract ... --cache {folder}"
    counts = status.as_dict()["videos"]
    yield f"{folder}: " + ", ".join(f"{count} {name}" for name, count in counts.items())
    for name, reasons in status.reasons.items():
        for reason, count in reasons.items():
            hint = "training leaves it out, unless --partial" if name == "partial" else ""
            then = f"mend the files, then {again} --retry-failed={reason}"
            yield f"  {count} {name} ({reason}): {hint + '; ' if hint else ''}{then}"
    if status.missing:
        yield f"  {len(status.missing)} of {manifest} not done yet: {again} --manifest {manifest}"
    if status.damaged:
        yield f"  {len(status.damaged)} damaged shards: memfeat cache repair {folder}, then {again}"
    if status.parts:
        yield (
            f"  {len(status.parts)} unfinished files: an extraction is at work, or was killed; "
            f"memfeat cache repair {folder} removes those of the dead"
        )
    if status.set_aside:
        yield f"  {len(status.set_aside)} shards set aside earlier (*.damaged): delete them"
    for ids in status.same[:FEW]:
        across = len({splits[video_id] for video_id in ids if video_id in splits}) > 1
        leak = ", in different splits: they give each other away" if across else ""
        yield f"  warning: {', '.join(map(repr, ids[:FEW]))} are the same file{leak}"
    if len(status.same) > FEW:
        yield f"  warning: and {len(status.same) - FEW} more groups of ids are the same file"
