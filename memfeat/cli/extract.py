"""`memfeat extract` and `memfeat plan`: stage 1, and what it will take."""

from typing import TYPE_CHECKING, Any

import click

from memfeat.cli.names import check_name
from memfeat.cli.options import (
    CommandOfSwitches,
    dry_run_option,
    json_option,
    print_figures,
    print_json,
    say,
    settings_options,
)
from memfeat.config import ExtractConfig, PlanConfig
from memfeat.errors import ExitCode, counted

if TYPE_CHECKING:
    from memfeat.extraction import ExtractionSummary

FEW = 3  # examples


@click.command(
    "extract",
    cls=CommandOfSwitches,
    epilog="Example: memfeat extract pipelines/extract.toml --manifest data_manifests/mine.csv "
    "--cache cache/mine/ViT-L-14-336 --device cuda",
)
@settings_options(ExtractConfig, "extract")
@dry_run_option
@json_option
def extract_command(config: ExtractConfig, dry_run: bool, as_json: bool) -> int:
    """Encode videos into a cache of embeddings.

    Every frame of every video, unless --sampler says otherwise; or, with --text, what is written
    or said about it: a row a caption, or a window of a longer text. Settings come from the
    [extract] table of PIPELINE.toml; flags override it. Stop it at any time: the same command goes
    on where it was. Exit code 3: done, but some videos failed; one without a text has not.
    """
    if dry_run:
        plan = would_extract(config)
        print_json(plan) if as_json else print_figures(plan)
        return ExitCode.DONE
    from memfeat.cache.spec import NO_TEXT

    summary = fill_cache(config)
    if as_json:
        print_json(summary.as_dict())
    else:
        say_summary(summary, config)
        click.echo(config.cache)
    failed = set(summary.failures.values()) - {NO_TEXT}
    return ExitCode.SOME_VIDEOS_FAILED if failed else ExitCode.DONE


def would_extract(config: ExtractConfig) -> dict[str, Any]:
    """Tell what filling a cache would do."""
    from memfeat.manifest import read_manifest

    manifest = read_manifest(config.manifest, config.root)
    if not config.text:
        check_name("encoder", config.encoder)

    from memfeat.extraction import plan_extraction

    return plan_extraction(manifest, config)


def fill_cache(config: ExtractConfig) -> "ExtractionSummary":
    """Extract what a cache lacks, and show the progress."""
    from memfeat.manifest import read_manifest
    from memfeat.workers import prepare_workers

    manifest = read_manifest(config.manifest, config.root)
    if not config.text:
        check_name("encoder", config.encoder)
    prepare_workers("memfeat.extraction")

    from memfeat.cli.progress import progress_line
    from memfeat.extraction import extract

    with progress_line("videos", len(manifest.records[: config.limit])) as progress:
        return extract(
            manifest,
            config,
            on_start=progress.start_extraction,
            on_video=progress.count,
            on_rates=progress.measure,
        )


def say_summary(summary: "ExtractionSummary", config: ExtractConfig) -> None:
    """Print on stderr what extraction did, and what it could not do."""
    from memfeat.cache.spec import NO_TEXT

    figures = summary.as_dict()
    what = "text" if summary.spec.is_text else "frame"
    say(f"{config.cache}: {summary.spec.describe()}")
    say(
        f"{counted(summary.wanted, 'video')}: {figures['already_done']} cached already, "
        f"{figures['ok']} ok, {figures['partial']} partial, {figures['failed']} failed; "
        f"{counted(figures['frames'], what)} in {figures['seconds']:.1f} s"
        + (f" ({figures['frames_per_second']:.1f} {what}s/s)" if figures["frames"] else "")
    )
    if summary.rates.advice:
        rates = figures["rates"]
        say(
            f"{rates['decoded_per_second']} frames/s decoded, {rates['encoded_per_second']} "
            f"encoded, {rates['written_per_second']} written; queue "
            f"{summary.rates.queue_fill:.0%} full; {summary.rates.advice}"
        )
    if summary.spec.sampling != "every" and figures["frames"] and not summary.spec.is_text:
        kept, frames = summary.frames_kept, figures["frames"]
        say(f"sampler {summary.spec.sampling} kept {kept} of {frames} frames")
    for path in summary.set_aside:
        say(f"a damaged shard was set aside and made again: {path}")
    for ids in summary.same[:FEW]:
        say(f"warning: {', '.join(map(repr, ids[:FEW]))} are the same file")
    if len(summary.same) > FEW:
        more = len(summary.same) - FEW
        say(f"warning: and {counted(more, 'more group')}; `memfeat status` counts them")
    reasons = figures["reasons"]
    if silent := reasons.pop(NO_TEXT, 0):
        say(
            f"{counted(silent, 'video')} without a text: left out of training, or given zeros with "
            "--missing zero; --retry-failed=no_text looks for it again"
        )
    if reasons:
        listed = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
        failed = counted(sum(reasons.values()), "video")
        say(
            f"{failed} failed ({listed}); mend what is wrong and add --retry-failed, "
            f"or see `memfeat status {config.cache}`"
        )


@click.command(
    "plan",
    epilog="Example: memfeat plan --videos 10000 --seconds 3 --rate 1300 --gpus 4 --price 2.5",
)
@settings_options(PlanConfig)
@json_option
def plan_command(config: PlanConfig, as_json: bool) -> None:
    """Estimate what extraction will take.

    Frames, bytes, shards, and with a rate hours and cost: for a manifest, or for --videos of
    --seconds each. Nothing is decoded and no weights are loaded. A manifest's files are looked
    for, and the headers of a random few tell how long they are, which is an estimate. A rate is
    given, or measured by `memfeat extract --limit 8 --json` into a new cache. Starting, failures
    and waiting for machines are not in the hours.
    """
    check_name("encoder", config.encoder)

    from memfeat.planning import make_plan

    plan = make_plan(config)
    if as_json:
        print_json(plan)
        return
    headers = plan.pop("headers", {})
    print_figures(plan | headers)
    if "rate" not in plan:
        say("note: without --rate or --rate-from no hours can be told")
