"""`memfeat status`: the state of a cache's videos, and the commands that mend what is wrong."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from memfeat.cli.options import LOCATION, json_option, print_json
from memfeat.errors import ExitCode
from memfeat.storage import Location

if TYPE_CHECKING:
    from memfeat.cache import CacheStatus

FEW = 3  # examples


@click.command(
    "status",
    epilog="Example: memfeat status cache/demo/efficientnet-lite0 --manifest "
    "data_manifests/demo.csv",
)
@click.argument("folder", type=LOCATION, metavar="CACHE")
@click.option("--manifest", type=LOCATION, help="Also count its videos that are not done.")
@json_option
def status_command(folder: Location, manifest: Location | None, as_json: bool) -> int:
    """Show the state of a cache's videos, and what to do next.

    In the commands it prints, `...` stands for the settings that made the cache. Embeddings are not
    read; `memfeat cache verify` does that. Exit code 1: shards are damaged; 3: some videos failed.
    """
    from memfeat.cache import status_of
    from memfeat.manifest import read_manifest

    records = read_manifest(manifest).records if manifest else ()
    status = status_of(folder, {record.video_id: record.split for record in records})
    if as_json:
        print_json(status.as_dict())
    else:
        for line in _lines(status):
            click.echo(line)
    if status.damaged or status.other:
        return ExitCode.ERROR
    return ExitCode.SOME_VIDEOS_FAILED if status.videos["failed"] else ExitCode.DONE


def _lines(status: "CacheStatus") -> Iterator[str]:
    counts = ", ".join(f"{count} {name}" for name, count in status.videos.items())
    yield f"{status.folder}: {counts}"
    for problem, command in status.tasks():
        yield f"  {problem}: {command}"
    yield from (f"  {why}" for why in (*status.damaged.values(), *status.other.values()))
    yield from _warnings(status.leaks, "are the same file, in different splits: a leak")
    others = [ids for ids in status.same if ids not in status.leaks]
    yield from _warnings(others, "are the same file")


def _warnings(groups: Sequence[tuple[str, ...]], what: str) -> Iterator[str]:
    for ids in groups[:FEW]:
        more = f" and {len(ids) - FEW} more" if len(ids) > FEW else ""
        yield f"  warning: {', '.join(map(repr, ids[:FEW]))}{more} {what}"
    if len(groups) > FEW:
        yield f"  warning: {len(groups) - FEW} more groups of ids {what}"
