"""`memfeat plan`: what an extraction will take."""

from typing import TYPE_CHECKING, Any

import click

from memfeat.cli.options import json_option, print_json, read_settings, settings_options
from memfeat.config import PlanConfig

if TYPE_CHECKING:
    from memfeat.planning import Footage, Pace, Plan

UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB", "EB")
SHOWN = 3  # missing videos by name


@click.command(
    "plan",
    epilog="Example: memfeat plan --videos 10000 --seconds 3 --rate 1300 --gpus 4 --price 2.5",
)
@settings_options(PlanConfig, from_file=False)
@json_option
def plan_command(as_json: bool, **flags: Any) -> None:
    """Reckon what extraction will take.

    Frames, bytes, shards, and with a rate hours and cost: for a manifest, or for --videos of
    --seconds each. Nothing is decoded and no weights are loaded. A manifest's files are looked
    for, and the headers of a random few tell how long they are, which is an estimate. A rate is
    given, or measured by `memfeat extract --limit 8 --json` into a new cache. Starting, failures
    and waiting for machines are not in the hours.
    """
    config = read_settings(PlanConfig, "plan", None, flags)

    from memfeat.planning import make_plan

    plan = make_plan(config)
    if as_json:
        print_json(plan.as_dict())
        return
    for name, text in _lines(plan).items():
        click.echo(f"{name:<11} {text}")
    if plan.pace is None:
        click.echo("note: without --rate or --rate-from no hours can be told", err=True)


def _lines(plan: "Plan") -> dict[str, str]:
    footage, size = plan.footage, plan.size
    frames = "" if size.shape.clip_frames == 1 else f" for {size.shape.clip_frames} frames each"
    lines = {
        "videos": f"{footage.videos:,}{_absent(footage)}",
        "frames": f"{footage.frames:,.0f}, {footage.frames_a_video:,.1f} a video",
        "lengths": _lengths(footage),
        "rows": f"{size.rows:,.0f} of {size.shape.width:,} float16 numbers, {plan.encoder}{frames}",
        "cache": f"{_bytes(size.total_bytes)}: {size.row_bytes:,} bytes a row, and "
        f"{size.video_bytes} a video",
        "shards": f"{size.shards:,} of {_bytes(size.shard_bytes)}",
        "source": "" if footage.source_bytes is None else _bytes(footage.source_bytes),
    }
    if plan.pace:
        lines |= _pace_lines(plan.pace)
    return {name: text for name, text in lines.items() if text}


def _pace_lines(pace: "Pace") -> dict[str, str]:
    needed = f"{pace.decode_needed:,.0f} frames/s must be decoded so that no GPU waits"
    if pace.cores_needed is not None:
        needed += f": {pace.cores_needed:,} cores"
    read = pace.read_bytes_per_second
    reads = "" if read is None else f"{_bytes(read)}/s read, "
    return {
        "rate": f"{pace.rate.frames_per_second:,.1f} frames/s a GPU, {pace.rate.source}",
        "time": f"{pace.seconds / 3600:,.2f} h on {pace.gpus:,} GPUs, {pace.gpu_hours:,.2f} GPU "
        "hours",
        "cost": "" if pace.cost is None else f"{pace.cost:,.2f}",
        "decoding": needed,
        "traffic": f"{reads}{_bytes(pace.write_bytes_per_second)}/s written",
        "bottleneck": f"{pace.bottleneck}" if pace.knows_decoding else "",
    }


def _absent(footage: "Footage") -> str:
    text = f", {footage.remote:,} of them remote and not looked at" if footage.remote else ""
    if footage.missing:
        names = ", ".join(footage.missing[:SHOWN])
        more = ", ..." if len(footage.missing) > SHOWN else ""
        text += f"; {len(footage.missing):,} more are missing: {names}{more}"
    return text


def _lengths(footage: "Footage") -> str:
    if footage.is_given:
        return ""
    headers = footage.as_dict()["headers"]
    text = (
        f"by {headers['looked_at']:,} headers: {headers['shortest']:,.0f} to "
        f"{headers['longest']:,.0f} frames, median {headers['median']:,.0f}"
    )
    if footage.error is None:
        text += "; too few to tell how far off"
    elif footage.error:
        text += f"; the total to {footage.error:.1%} (95 %), if headers tell the truth"
    if footage.silent:
        text += f"; {footage.silent} tell no length"
    if footage.unreadable:
        reasons = ", ".join(sorted(set(footage.unreadable.values())))
        text += f"; {len(footage.unreadable)} cannot be read ({reasons})"
    return text


def _bytes(number: float) -> str:
    """Show a number of bytes to three digits."""
    unit = 0
    while number >= 999.5 and unit < len(UNITS) - 1:
        number, unit = number / 1000, unit + 1
    digits = 0 if unit == 0 else max(0, 3 - len(str(int(number))))
    return f"{number:.{digits}f} {UNITS[unit]}"
