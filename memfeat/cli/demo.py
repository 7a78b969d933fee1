"""`memfeat demo`: renders the demo datasets."""

from pathlib import Path

import click

from memfeat.cli.options import LOCAL_PATH
from memfeat.registry import unknown_name


@click.command("demo", epilog="Example: memfeat demo && memfeat extract pipelines/demo.toml")
@click.option(
    "--name",
    default="demo",
    show_default=True,
    help="demo, or demo-b: other clips, another formula, a higher mean, to transfer models to.",
)
@click.option("--manifest", type=LOCAL_PATH, help="Manifest [data_manifests/NAME.csv].")
@click.option("--videos", type=LOCAL_PATH, help="Folder of clips [data/NAME].")
def demo_command(name: str, manifest: Path | None, videos: Path | None) -> None:
    """Render the demo clips and write their manifest.

    Existing clips are kept. They show photographs that scikit-image and scikit-learn ship. Their
    scores follow a formula and are not people's: they show that the machinery works, and nothing
    about memory.
    """
    from memfeat.cli.progress import progress_line
    from memfeat.datasets.demo import DEMOS
    from memfeat.datasets.rendering import render_demo

    if name not in DEMOS:
        raise unknown_name("demo", name, DEMOS)
    manifest = manifest or Path("data_manifests", f"{name}.csv")
    settings = DEMOS[name]
    with progress_line("clips", settings.num_clips) as progress:
        render_demo(
            manifest,
            videos or Path("data", name),
            settings=settings,
            on_clip=progress.advance,
        )
    click.echo(manifest)
