"""`memfeat cache` and `memfeat status`: look into a cache, mend it, move features in or out."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from memfeat.cli.cache_compare import compare_command
from memfeat.cli.options import (
    LOCAL_PATH,
    LOCATION,
    json_option,
    print_json,
    say,
    settings_options,
    some,
)
from memfeat.config import ImportConfig
from memfeat.errors import ExitCode, counted, listed
from memfeat.storage import Location

if TYPE_CHECKING:
    from memfeat.cache import CacheStatus, ExportSummary, ImportSummary


FEW = 3  # examples


@click.group("cache", epilog="Example: memfeat cache verify cache/demo/efficientnet-lite0")
def cache_command() -> None:
    """Look into a cache, compare two, or move features in or out."""


cache_command.add_command(compare_command)


@cache_command.command("info", epilog="Example: memfeat cache info cache/demo/efficientnet-lite0")
@click.argument("folder", type=LOCATION)
@json_option
def info_command(folder: Location, as_json: bool) -> None:
    """Say what a cache holds and what made it."""
    from memfeat.cache import Cache

    summary = Cache.open(folder, damaged_ok=True).summary()
    if as_json:
        print_json(summary)
        return
    spec = summary.pop("spec")
    for name, value in {**summary, **spec}.items():
        counts = isinstance(value, dict) and ", ".join(f"{n} {key}" for key, n in value.items())
        click.echo(f"{name:<17} {value if counts is False else counts or 'none'}")


@cache_command.command(
    "verify", epilog="Example: memfeat cache verify cache/demo/efficientnet-lite0"
)
@click.argument("folder", type=LOCATION)
@json_option
def verify_command(folder: Location, as_json: bool) -> int:
    """Read every shard and check checksums, vectors and offsets. Exit code 1: damage found."""
    from memfeat.cache import verify
    from memfeat.storage import shards_at

    problems = {str(path): problem for path, problem in verify(folder).items()}
    if as_json:
        print_json({"folder": str(folder), "problems": problems})
    else:
        for problem in problems.values():
            click.echo(problem)
        say(f"{len(problems)} of {len(shards_at(folder))} shards have problems in {folder}")
    return ExitCode.ERROR if problems else ExitCode.DONE


@cache_command.command(
    "repair", epilog="Example: memfeat cache repair cache/demo/efficientnet-lite0"
)
@click.argument("folder", type=LOCATION)
@json_option
def repair_command(folder: Location, as_json: bool) -> int:
    """Verify every shard and set bad ones aside, so that the next `extract` makes them again.

    Deletes what killed writers left, and entries of videos that a later attempt replaces. A shard
    of another version, or made with other settings, is left alone and named; exit code 1 then.
    """
    from memfeat.cache import repair

    done = repair(folder)
    if as_json:
        print_json(
            {
                "folder": str(folder),
                "set_aside": {str(path): why for path, why in done.set_aside.items()},
                "left_alone": {str(path): why for path, why in done.left_alone.items()},
                "parts_removed": done.parts_removed,
                "superseded": done.superseded,
            }
        )
    else:
        for path, why in done.set_aside.items():
            click.echo(f"{why} It is now {path.name}")
        for why in done.left_alone.values():
            click.echo(f"left alone: {why}")
        say(
            f"{counted(len(done.set_aside), 'bad shard')} set aside, "
            f"{counted(done.parts_removed, 'unfinished file')} removed, "
            f"{counted(done.superseded, 'superseded entry', 'superseded entries')} dropped in "
            f"{folder}" + ("; `memfeat extract` makes their videos again" if done.set_aside else "")
        )
    return ExitCode.ERROR if done.left_alone else ExitCode.DONE


@cache_command.command(
    "import",
    epilog="Example: memfeat cache import features.npz --name C3D --source 'handed out with "
    "MediaEval 2019' -o cache/videomem/C3D --manifest data_manifests/videomem.csv",
)
@click.argument("path", type=LOCAL_PATH, metavar="SRC")
@click.option(
    "-o",
    "--cache",
    "folder",
    type=LOCAL_PATH,
    required=True,
    help="Folder of shards to fill.",
)
@settings_options(ImportConfig)
@json_option
def import_command(path: Path, folder: Path, config: ImportConfig, as_json: bool) -> int:
    """Import features that were made elsewhere into a cache.

    SRC is a folder with a .npy file for each video, called by its id, time x dim or dim; a .csv
    with a column video_id, video or id, and features in all others; or a .npz with video_ids (N,)
    and features: N x dim, N x time x dim, or total x dim with offsets (N + 1,). Nothing is
    unpickled.

    One step is one row. Their times are not known and are counted: 0, 1, 2. The cache says that
    its features were made elsewhere, and so does every table made with them. Importing the same
    again does nothing; more files may follow under the same --name and --source. Exit code 3: done,
    but videos of --manifest are not in SRC.
    """
    from memfeat.cache import import_features

    summary: ImportSummary = _moved(import_features, config.manifest, path, folder, config)
    if as_json:
        print_json(summary)
    else:
        _say(summary, folder, config)
        click.echo(folder)
    return ExitCode.SOME_VIDEOS_FAILED if summary.missing else ExitCode.DONE


@cache_command.command(
    "export",
    epilog="Example: memfeat cache export cache/demo/efficientnet-lite0 -o demo-features.npz",
)
@click.argument("folder", type=LOCATION)
@click.option(
    "-o",
    "--output",
    type=LOCAL_PATH,
    required=True,
    help="The .npz or .parquet file to write, or the folder to make.",
)
@click.option("--manifest", type=LOCATION, help="Only its videos, in its order.")
@click.option("--partial", is_flag=True, help="Also videos that could be decoded only in part.")
@json_option
def export_command(
    folder: Location, output: Path, manifest: Location | None, partial: bool, as_json: bool
) -> int:
    """Export a cache's features to NPZ, Parquet or .npy files, for other tools.

    A .npz has video_ids (N,), offsets (N + 1,), features (rows, width) float16, of which video i
    has the rows offsets[i]:offsets[i + 1]; and, for each row, pts_seconds and covers. A .parquet
    has a row a frame: video_id, pts_seconds, covers, status, features. A name without a suffix
    becomes a folder, with ID.npy (time, width) for each video and all else in memfeat.npz. spec and
    made_by say what made them. `memfeat cache import` makes the same cache of a .npz or a folder.
    Exit code 3: done, but the cache has no features of some videos of --manifest.
    """
    from memfeat.cache import export_features

    summary: ExportSummary = _moved(export_features, manifest, folder, output, partial=partial)
    if as_json:
        print_json(summary)
    else:
        say(f"features: {summary.made_by}")
        say(f"{counted(summary.videos, 'video')}, {counted(summary.rows, 'row')}")
        if summary.left_out:
            say(f"no features of {some(summary.left_out)}")
        click.echo(output)
    return ExitCode.SOME_VIDEOS_FAILED if summary.left_out else ExitCode.DONE


def _moved(
    work: Callable[..., Any], manifest: Location | None, *arguments: Any, **options: Any
) -> Any:
    """Import or export the videos of a manifest, or all, and show the progress."""
    from memfeat.cli.progress import progress_line
    from memfeat.manifest import read_manifest

    wanted = None if manifest is None else tuple(read_manifest(manifest).by_id)
    with progress_line("videos", 0) as progress:
        callbacks = {"on_start": progress.restart, "on_video": progress.advance}
        return work(*arguments, wanted=wanted, **callbacks, **options)


def _say(summary: "ImportSummary", folder: Path, config: ImportConfig) -> None:
    say(f"{folder}: {summary.spec.describe()}")
    say(
        f"{counted(summary.imported, 'video')} imported, {counted(summary.steps, 'row')}, in "
        f"{summary.seconds:.1f} s; {summary.already_done} there already"
        + (f", {summary.unused} not in the manifest" if config.manifest else "")
        + (f": {some(summary.unused_ids)}" if config.manifest and summary.unused else "")
    )
    if config.name not in (None, summary.spec.encoder):
        say(f"note: {config.name!r} is not kept, for the file says itself what made its features")
    for path in summary.set_aside:
        say(f"a damaged shard was set aside and made again: {path}")
    if summary.missing:
        say(f"not there, of the manifest: {some(summary.missing)}")


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

    In the commands it prints, SRC and, without --manifest, MANIFEST stand for files of yours.
    Embeddings are not read; `memfeat cache verify` does that. Exit code 1: shards are damaged; 3:
    some videos failed.
    """
    from memfeat.cache import status_of
    from memfeat.manifest import read_manifest

    records = read_manifest(manifest).records if manifest else ()
    splits = {record.video_id: record.split for record in records}
    status = status_of(folder, splits, manifest=manifest)
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
        yield f"  warning: {listed(list(map(repr, ids)), FEW)} {what}"
    if len(groups) > FEW:
        yield f"  warning: {counted(len(groups) - FEW, 'more group')} of ids {what}"
