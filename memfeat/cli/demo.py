"""`memfeat demo`: the embedded datasets."""

from pathlib import Path

import click

from memfeat.cli.options import LOCAL_PATH
from memfeat.registry import unknown_name


@click.command("demo", epilog="Example: memfeat demo && memfeat extract pipelines/demo.toml")
@click.option(
    "--name",
    default="demo",
    show_default=True,
    help="demo, or demo-b: other clips, another formula, a higher mean, to carry models over to.",
)
@click.option("--manifest", type=LOCAL_PATH, help="Manifest [data_manifests/NAME.csv].")
@click.option("--videos", type=LOCAL_PATH, help="Folder of clips [data/NAME].")
def demo_command(name: str, manifest: Path | None, videos: Path | None) -> None:
    """Render the demo clips and their manifest.

    Clips that are there already are kept. They are cut from photographs that scikit-image and
    scikit-learn ship. Their scores follow a formula: they are not people's, and show that the
    machinery works, nothing about memory.
    """
    from memfeat.cli.progress import step_progress
    from memfeat.datasets.demo import DEMOS
    from memfeat.datasets.rendering import render_demo

    if name not in DEMOS:
        raise unknown_name("demo", name, DEMOS)
    manifest = manifest or Path("data_manifests", f"{name}.csv")
    settings = DEMOS[name]
    with step_progress("clips", settings.num_clips) as progress:
        render_demo(
            manifest,
            videos or Path("data", name),
            settings=settings,
            on_clip=progress.advance,
        )
    click.echo(manifest)
